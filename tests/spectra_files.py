"""Write 1-D spectra of one known line in every form that is read."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

AIR, VACUUM = 4861.333, 4862.6910  # H-beta in Angstrom; NIST gives 4862.69 in vacuum
STEP = 1.0
WAVELENGTH = 4700 + STEP * np.arange(401)


def line(wavelength: np.ndarray, centre: float = AIR, depth: float = 0.5) -> np.ndarray:
    """A Gaussian absorption line of 4 Angstrom on a continuum of 1."""
    return 1 - depth * np.exp(-(((wavelength - centre) / 4) ** 2))


def write_image(path: Path, flux: np.ndarray, extensions: dict[str, np.ndarray] | None = None, **header) -> Path:
    """A FITS image; DC_FLAG stands for DC-FLAG."""
    cards = fits.Header([(key.replace("_FLAG", "-FLAG"), value) for key, value in header.items()])
    more = [fits.ImageHDU(values, name=name) for name, values in (extensions or {}).items()]
    fits.HDUList([fits.PrimaryHDU(flux, cards), *more]).writeto(path, overwrite=True)
    return path


def _image(path: Path, **header) -> None:
    write_image(path, line(WAVELENGTH), **{"CRPIX1": 1} | header)


def _log(path: Path, log, extensions: dict | None = None, **header) -> None:
    grid = np.linspace(log(4700.0), log(5100.0), 401)
    write_image(
        path,
        line(np.exp(grid) if log is np.log else 10**grid),
        extensions,
        CRVAL1=grid[0],
        CDELT1=grid[1] - grid[0],
        CRPIX1=1,
        **header,
    )


def _standard_log(path: Path) -> None:
    grid = 4700 * np.exp(0.9 * np.arange(401) / 4700)
    write_image(path, line(grid), CRVAL1=4700.0, CDELT1=0.9, CRPIX1=1, CTYPE1="AWAV-LOG", CUNIT1="Angstrom")


def _table(path: Path, columns: dict, units: dict | None = None, **options) -> None:
    Table(columns, units=units).write(path, **options)


def _sdss(path: Path) -> None:
    """The form that specutils knows as SDSS-III/IV spec: log10 in a table, bad pixels marked."""
    grid = np.linspace(np.log10(4700.0), np.log10(5100.0), 401)
    table = {
        "flux": line(10**grid, VACUUM),
        "loglam": grid,
        "ivar": np.full(401, 1e4),
        "and_mask": np.zeros(401, dtype=np.int32),
    }
    table["flux"][7], table["and_mask"][7] = 5e6, 1 << 20
    primary = fits.PrimaryHDU()
    primary.header.update(TELESCOP="SDSS 2.5-M", FIBERID=3, VERS2D="v5_7_0", VACUUM=True, BUNIT="1E-17 erg/cm^2/s/Ang")
    fits.HDUList([primary, fits.BinTableHDU(Table(table), name="COADD")]).writeto(path)


def _text(path: Path, text: str) -> None:
    path.write_text(text)


def _rows(separator: str) -> str:
    return "\n".join(f"{w:.3f}{separator}{f:.6f}" for w, f in zip(WAVELENGTH, line(WAVELENGTH), strict=True)) + "\n"


FORMS = {  # {file name: how to write it}; all have the line at 4861.333 Angstrom in air or at 4862.691 in vacuum
    "angstrom.fits": lambda p: _image(p, CRVAL1=4700.0, CDELT1=STEP, CTYPE1="AWAV", CUNIT1="Angstrom"),
    "nm.fits": lambda p: _image(p, CRVAL1=470.0, CD1_1=STEP / 10, CUNIT1="nm", AIRORVAC="air"),
    "micron.fits": lambda p: _image(p, CRVAL1=0.47, CDELT1=STEP / 1e4, CUNIT1="um", CTYPE1="AWAV"),
    "misspelt.fits": lambda p: _image(
        p, CRVAL1=4700.0, CDELT1=STEP, CUNIT1="ANGSTROMS", CTYPE1="LINEAR", AIRORVAC="air", BUNIT="adus"
    ),
    "iraf.fits": lambda p: _image(
        p, CRVAL1=4700.0, CDELT1=STEP, WAT1_001="wtype=linear label=Wavelength units=angstroms", AIRORVAC="air"
    ),
    "offset.fits": lambda p: _image(p, CRVAL1=4800.0, CDELT1=STEP, CRPIX1=101, CTYPE1="AWAV", CUNIT1="Angstrom"),
    "deep.fits": lambda p: write_image(
        p, line(WAVELENGTH)[None, None], CRVAL1=4700.0, CDELT1=STEP, CRPIX1=1, AIRORVAC="air"
    ),
    "vacuum.fits": lambda p: write_image(
        p, line(WAVELENGTH, VACUUM), CRVAL1=4700.0, CDELT1=STEP, CRPIX1=1, CTYPE1="WAVE", CUNIT1="Angstrom"
    ),
    "log10.fits": lambda p: _log(p, np.log10, DC_FLAG=1, AIRORVAC="air"),
    "ln.fits": lambda p: _log(p, np.log, CTYPE1="LOG-LAMBDA", AIRORVAC="air"),
    "standard_log.fits": _standard_log,
    "sdss_log.fits": lambda p: _log(
        p, np.log10, {"IVAR": np.full(401, 1e4)}, CTYPE1="AWAV-LOG"
    ),  # logarithms under the standard's name
    "sdss.fits": _sdss,
    "extension.fits": lambda p: write_image(
        p, line(WAVELENGTH), {"WAVELENGTH": WAVELENGTH, "ERR": np.full(401, 0.01)}, MEDIUM="air"
    ),
    "table.fits": lambda p: _table(
        p, {"WAVE": WAVELENGTH / 10, "FLUX": line(WAVELENGTH, VACUUM), "IVAR": np.full(401, 1e4)}, {"WAVE": "nm"}
    ),
    "log_table.fits": lambda p: _table(
        p, {"loglam": np.log10(WAVELENGTH), "flux": line(WAVELENGTH), "ivar": np.full(401, 1e4)}
    ),
    "one_row.fits": lambda p: _table(
        p, {"wave_air": WAVELENGTH[None], "flux": line(WAVELENGTH)[None]}, {"wave_air": "Angstrom"}
    ),
    "bare.txt": lambda p: _text(p, "# wavelength (air), flux\n" + _rows("  ")),
    "named.dat": lambda p: _text(p, "wave_air flux\n" + _rows(" ")),
    "tabs.tsv": lambda p: _text(p, "lambda_air\tflux\n" + _rows("\t")),
    "commas.csv": lambda p: _text(p, "wavelength_air,flux\n" + _rows(",")),
    "no_names.csv": lambda p: _text(p, "# air\n" + _rows(",")),
    "units.ecsv": lambda p: _table(
        p, {"wave_air": WAVELENGTH / 10, "flux": line(WAVELENGTH)}, {"wave_air": "nm"}, format="ascii.ecsv"
    ),
    "descending.txt": lambda p: _text(
        p, "wave_air flux\n" + "\n".join(reversed(_rows(" ").strip().split("\n"))) + "\n"
    ),
}
MEDIA = {"table.fits": "vacuum", "log_table.fits": "air"}  # what these leave open


def write_labels(path: Path, names: list[str], **columns) -> Path:
    """A table of labels with a name per star."""
    n = len(names)
    table = {"name": names, "teff": np.linspace(4100, 6900, n), "logg": np.linspace(1.0, 4.8, n)} | columns
    Table(table).write(path, format="ascii.csv", overwrite=True)
    return path


def centre_of(wavelength: np.ndarray, flux: np.ndarray) -> float:
    """Centre [nm] of the one line of a spectrum."""
    near = np.abs(wavelength - VACUUM / 10) < 1.5
    depth = 1 - flux[near]
    return float((depth * wavelength[near]).sum() / depth.sum())
