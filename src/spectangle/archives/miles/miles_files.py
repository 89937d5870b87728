"""The MILES library in the forms in which it lies on a disk: FITS files in a folder or a wheel, or the prepared copy.

FITS files are named by their number (`MILES_res2.50_star_m0001V.fits`) and lie beside the parameter table
`paramsMILES_v9.1.txt`; the wheel of sdss-mangadap (unzipped or not) has them in
`mangadap/data/spectral_templates/miles`. The prepared copy is `miles.npz` (flux,
wavelength) and `labels.csv`.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.archives.miles.miles_table import MilesTable, parse_csv, parse_table
from spectangle.archives.spectra.fits_spectrum import read_fits
from spectangle.archives.spectra.spectrum_form import SpectrumForm
from spectangle.archives.tables.fits_file import open_fits
from spectangle.errors import SpectangleError

__all__ = ["MilesFiles", "find_miles"]

NUMBER = re.compile(r"(?:^|[_\W])[ms]?(\d{4})V?\.(?:fits?)(?:\.gz)?$", re.IGNORECASE)
TABLE = re.compile(r"paramsMILES.*\.txt$", re.IGNORECASE)
FORM = SpectrumForm(wavelength_unit="Angstrom", medium="air")
WHEEL_FOLDER = "spectral_templates/miles/"
WHERE_FROM = "pip download --no-deps sdss-mangadap==4.5.0 gets it; give the wheel, or the folder of the FITS files"
OMITTED = "lies in a folder of its own, as the distribution's omitted spectra do"


@dataclass(frozen=True)
class MilesFiles:
    """What was found.

    Arguments:
        table: The labels.
        groups: Paths of the spectra, grouped for the processes.
        numbers: {number of a spectrum: path, or name within the wheel}.
        left_out: Files that are not used, each with the reason.
    """

    table: MilesTable
    groups: list[list[Path]]
    numbers: dict[str, Any]
    left_out: list[str] = field(default_factory=list)

    def read(self, path: Path) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
        """Yield (numbers [n], wavelength [P] in Angstrom in air, flux [n, P]) of one path of :attr:`groups`."""
        if path.suffix == ".npz":
            yield _copy(path, self.table)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for number, member in self.numbers.items():
                    yield [number], *_fits(io.BytesIO(archive.read(member)), f"{path}, {member}")
        else:
            number = _number(path.name)
            assert number is not None
            yield [number], *_fits(path, str(path))


def find_miles(folder: str, labels_table: str | None = None, group: int = 128) -> MilesFiles:
    """Find the library's spectra and labels.

    Arguments:
        folder: Folder of FITS files, unzipped wheel, wheel, or folder of the prepared copy.
        labels_table: The parameter table, where it does not lie beside the spectra.
        group: FITS files that one process reads at a time.

    Raises:
        SpectangleError: There are no spectra, no labels, or a spectrum comes twice.
    """
    path = Path(folder)
    if (path / "miles.npz").is_file():
        table = _table(Path(labels_table or path / "labels.csv"))
        return MilesFiles(table, [[path / "miles.npz"]], dict.fromkeys(table.miles_id, path / "miles.npz"))
    if path.is_file():
        return _in_wheel(path, labels_table)
    place = _spectra_folder(path)
    found, left_out = _by_number({file.name: file for file in sorted(place.iterdir()) if file.is_file()}, folder)
    table = _table(Path(labels_table)) if labels_table else _beside(place)
    left_out += [f"{file}: {OMITTED}" for file in sorted(place.glob("*/*.fits"))]
    files = [found[number] for number in sorted(found)]
    return MilesFiles(table, [files[i : i + group] for i in range(0, len(files), group)], found, left_out)


def _in_wheel(path: Path, labels_table: str | None) -> MilesFiles:
    if not zipfile.is_zipfile(path):
        raise SpectangleError(f"folder={path} is a file and no wheel: {WHERE_FROM}.")
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if WHEEL_FOLDER in name and not name.endswith("/")]
        beside = {name.rpartition("/")[2]: name for name in members if name.partition(WHEEL_FOLDER)[2].count("/") == 0}
        found, left_out = _by_number(beside, str(path))
        names = [name for name in beside if TABLE.search(name)]
        if labels_table is None and not names:
            raise _no_table(path)
        table = (
            _table(Path(labels_table))
            if labels_table
            else parse_table(archive.read(beside[names[0]]).decode(), f"{path}, {names[0]}")
        )
    omitted = [f"{path}, {name}: {OMITTED}" for name in members if name not in beside.values()]
    return MilesFiles(table, [[path]], found, left_out + omitted)


def _by_number(files: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """Spectra by number, and a sentence for each other file, of {file name: path}."""
    found: dict[str, Any] = {}
    left_out = []
    for name, path in files.items():
        number = _number(name)
        if number is None:
            if not TABLE.search(name):
                left_out.append(f"{path}: is no FITS file with a MILES number in its name")
        elif number in found:
            raise SpectangleError(f"{where} has spectrum {number} twice: {found[number]} and {path}; keep one.")
        else:
            found[number] = path
    if not found:
        raise SpectangleError(
            f"folder={where} has no MILES spectra (files such as MILES_res2.50_star_m0001V.fits, or miles.npz): "
            f"{WHERE_FROM}."
        )
    return found, left_out


def _spectra_folder(path: Path) -> Path:
    """The folder itself, or the one of the unzipped wheel in it."""
    if not path.is_dir():
        raise SpectangleError(f"There is no folder {path}: {WHERE_FROM}.")
    if any(_number(file.name) for file in path.iterdir()):
        return path
    inside = [table.parent for table in sorted(path.rglob("paramsMILES*.txt"))]
    return inside[0] if inside else path


def _beside(place: Path) -> MilesTable:
    tables = [file for folder in (place, place.parent) for file in sorted(folder.iterdir()) if TABLE.search(file.name)]
    if not tables:
        raise _no_table(place)
    return _table(tables[0])


def _table(path: Path) -> MilesTable:
    if not path.is_file():
        raise SpectangleError(
            f"There is no file {path}; MILES' labels were expected there (paramsMILES_v9.1.txt, or the copy's "
            "labels.csv)."
        )
    parse = parse_csv if path.suffix == ".csv" else parse_table
    return parse(path.read_text(), str(path))


def _no_table(path: Path) -> SpectangleError:
    return SpectangleError(
        f"{path} has spectra and no table of labels; give MILES' parameter table: labels_table=paramsMILES_v9.1.txt."
    )


def _number(name: str) -> str | None:
    match = NUMBER.search(name)
    return match[1] if match else None


def _fits(file: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Wavelengths [P] in Angstrom and flux [1, P]; the headers name no unit and no medium."""
    with open_fits(file, where) as hdulist:
        spectrum = read_fits(hdulist, where, FORM)
    return spectrum.wavelength * 10, spectrum.flux[None]


def _copy(path: Path, table: MilesTable) -> tuple[list[str], np.ndarray, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        if missing := {"flux", "wavelength"} - set(file):
            raise SpectangleError(f"{path} has no array '{missing.pop()}'; flux and wavelength were expected.")
        flux, wavelength = file["flux"], file["wavelength"]
    if flux.shape != (len(table.miles_id), len(wavelength)):
        raise SpectangleError(
            f"{path} has flux of shape {flux.shape}; {len(table.miles_id)} labels and {len(wavelength)} pixels "
            "were expected."
        )
    return table.miles_id, wavelength, flux
