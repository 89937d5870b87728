"""One spectrum of a FITS file: an image with a linear or logarithmic axis, a table, or a survey's own form, by
specutils' loaders.

Ours are only the things that specutils' loaders leave open: logarithmic axes as IRAF and many pipelines write them
(DC-FLAG = 1, CTYPE1 with LOG), units that are misspelt, and wavelengths in an extension of their own.
"""

import re
import warnings
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table

from spectangle.archives.spectra.air import need_specutils
from spectangle.archives.spectra.spectrum import Spectrum
from spectangle.archives.spectra.spectrum_form import (
    RANGE,
    SpectrumForm,
    Unstated,
    in_nanometres,
    medium_of,
    unit_of,
    without_log,
)
from spectangle.archives.spectra.table_spectrum import table_spectrum
from spectangle.archives.tables.fits_file import cards, header_of
from spectangle.errors import SpectangleError

__all__ = ["read_fits"]

GENERIC = {
    "wcs1d-fits",
    "tabular-fits",
    "iraf",
    "ASCII",
    "IPAC",
    "ECSV",
    "multi-extension",
}  # loaders that guess; all others know a survey
WAVELENGTH_HDUS = ("WAVELENGTH", "WAVE", "LAMBDA", "LOGLAM")
STANDARD_AXIS = re.compile(r"(WAVE|AWAV|FREQ|WAVN|ENER)(-LOG|-[A-Z]2[A-Z])?")
ERROR_NAMES = dict.fromkeys(
    ("ERR", "ERROR", "ERRORS", "SIGMA", "NOISE", "STDDEV", "UNCERT", "UNCERTAINTY", "FLUX_ERROR", "FLUX_ERR"), "STD"
) | {"VARIANCE": "VAR", "INVVAR": "IVAR", "FLUX_IVAR": "IVAR"}  # as specutils' loader knows them
ERRORS = {"STD": "error", "VAR": "variance", "IVAR": "ivar"}  # and as columns of a table
MASKS = ("MASK", "DQ", "QUALITY")
FLUX_HDUS = ("FLUX", "SCI", "DATA", "PRIMARY")


def read_fits(hdulist: Any, where: str, form: SpectrumForm | None = None) -> Spectrum:
    """Read the spectrum of an open file: wavelengths in nm, flux and error [P].

    Raises:
        SpectangleError: There is no spectrum in it, or more than one, or no wavelengths.
    """
    form = form or SpectrumForm()
    need_specutils("1-D spectra in FITS files")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if loader := form.format or _survey_format(hdulist):
            return _loaded(hdulist, where, format=loader)
        for name in FLUX_HDUS:
            if (
                name in hdulist
                and isinstance(hdulist[name], (fits.PrimaryHDU, fits.ImageHDU))
                and hdulist[name].data is not None
            ):
                return _image(hdulist, hdulist[name], where, form)
        for hdu in hdulist:
            if isinstance(hdu, fits.BinTableHDU):
                return table_spectrum(Table.read(hdu), header_of(hdulist), where, form)
        images = _images(hdulist)
        if not images:
            raise SpectangleError(f"{where} has neither an image nor a table with a spectrum.")
        return _image(hdulist, images[0], where, form)


def _survey_format(hdulist: Any) -> str | None:
    """The loader of a survey whose form the file has, where specutils knows one."""
    from astropy.io import registry
    from specutils import Spectrum as Loaded

    try:
        found = registry.identify_format("read", Loaded, None, None, [hdulist], {})
    except Exception:  # identifiers of other forms stumble over what they do not expect
        return None
    own = [name for name in found if name not in GENERIC]
    return own[0] if len(own) == 1 else None


def _loaded(file: Any, where: str, **options) -> Spectrum:
    """What a loader of specutils makes of the file."""
    from astropy.nddata import StdDevUncertainty
    from specutils import Spectrum as Loaded

    try:
        loaded = Loaded.read(file, **options)
        wavelength = in_nanometres(loaded.spectral_axis.value, loaded.spectral_axis.unit)
    except Exception as error:  # loaders raise many kinds
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpectangleError(
            f"{where} cannot be read as {options['format']} ({said}); name another loader: archive.form.format=..."
        ) from None
    flux = _only_row(np.array(loaded.flux.value, dtype=np.float64), where)
    if loaded.mask is not None:
        flux[_only_row(np.asarray(loaded.mask), where).astype(bool)] = np.nan
    error = (
        None
        if loaded.uncertainty is None
        else _only_row(loaded.uncertainty.represent_as(StdDevUncertainty).array, where).astype(np.float64)
    )
    header = loaded.meta.get("header")
    return Spectrum(wavelength, flux, error, medium_of(cards(header)) if isinstance(header, fits.Header) else None)


def _image(hdulist: Any, hdu: Any, where: str, form: SpectrumForm) -> Spectrum:
    """An image [P] with its axis in the header, or in an extension."""
    if (
        name := next(
            (
                name
                for name in WAVELENGTH_HDUS
                if name in hdulist and np.shape(hdulist[name].data) == np.shape(hdu.data)
            ),
            None,
        )
    ) is not None:
        return _by_extension(hdulist, hdu, hdulist[name], where, form)
    header = cards(hdu.header)
    step = next((header[key] for key in ("CDELT1", "CD1_1") if header.get(key)), None)
    special = str(header.get("CTYPE1", "")).upper().startswith("MULTISPE")
    if special:
        return _loaded(hdulist, where, format="iraf")
    if "CRVAL1" not in header or step is None:
        raise SpectangleError(
            f"{where} has no wavelengths: no CRVAL1 and CDELT1 (or CD1_1) in its header and no extension "
            f"{WAVELENGTH_HDUS[0]}."
        )
    header["CRPIX1"] = _reference_pixel(header, form, where)
    unit = unit_of(_stated_unit(header) or form.wavelength_unit, where)
    spectrum = _by_header(hdulist, hdu, header, unit, where)
    if not _is_log(header, unit):
        return spectrum
    values = without_log(header["CRVAL1"] + step * (np.arange(len(spectrum.flux)) + 1 - header["CRPIX1"]), unit, where)
    return Spectrum(in_nanometres(values, unit), spectrum.flux, spectrum.error, spectrum.medium)


def _by_extension(hdulist: Any, hdu: Any, axis: Any, where: str, form: SpectrumForm) -> Spectrum:
    """Flux, wavelengths and, if they are there, the error and the mask in images of their own."""
    name = axis.name.lower()
    table = {"flux": _only_row(hdu.data, where), name: _only_row(axis.data, where)}
    for other in _images(hdulist):
        kind = str(other.name)
        column = "mask" if kind in MASKS else ERRORS.get(ERROR_NAMES.get(kind, kind))
        if column and other is not hdu and np.size(other.data) == np.size(hdu.data):
            table.setdefault(column, _only_row(other.data, where))
    unit = {name: str(axis.header["BUNIT"])} if str(axis.header.get("BUNIT", "")).strip() else None
    return table_spectrum(Table(table, units=unit), header_of(hdulist), where, form)


def _reference_pixel(header: dict[str, Any], form: SpectrumForm, where: str) -> float:
    number = header.get("CRPIX1", form.reference_pixel)
    if number is None:
        raise Unstated(
            f"{where} has no CRPIX1; the FITS standard then means pixel 0, and most files without it mean pixel 1. "
            "State it: archive.form.reference_pixel=0 or archive.form.reference_pixel=1."
        )
    return number


def _by_header(hdulist: Any, hdu: Any, header: dict[str, Any], unit: Any, where: str) -> Spectrum:
    """An axis of the FITS standard, by specutils' loader; mask and uncertainty by its rules. Only what it needs is
    shown to it.
    """
    shown = fits.PrimaryHDU(_only_row(hdu.data, where), fits.Header())
    for key in ("CRVAL1", "CRPIX1", "CDELT1", "CD1_1", "PC1_1", "RESTWAV", "RESTFRQ"):
        if key in header:
            shown.header[key] = header[key]
    shown.header["BUNIT"] = ""  # flux units are often misspelt, and the continuum takes them away
    shown.header["CUNIT1"] = unit.to_string("fits")
    if STANDARD_AXIS.fullmatch(str(header.get("CTYPE1", "")).strip()):
        shown.header["CTYPE1"] = header["CTYPE1"]
    others: list[Any] = [
        fits.ImageHDU(_only_row(other.data, where), name=ERROR_NAMES.get(other.name, other.name))
        for other in _images(hdulist)
        if other is not hdu and np.shape(other.data) == np.shape(hdu.data)
    ]
    spectrum = _loaded(fits.HDUList([shown, *others]), where, format="wcs1d-fits")
    medium = medium_of(header) or medium_of(header_of(hdulist))
    return Spectrum(
        spectrum.wavelength, spectrum.flux, spectrum.error, medium if unit.physical_type == "length" else "vacuum"
    )


def _is_log(header: dict[str, Any], unit: Any) -> bool:
    """Whether the axis is in logarithms of wavelengths.

    The standard's own WAVE-LOG is not: its CRVAL1 is a wavelength. SDSS and others write log10(wavelength) under that
    name.
    """
    kind, stated = (str(header.get(key, "")).upper().strip() for key in ("CTYPE1", "CUNIT1"))
    if STANDARD_AXIS.fullmatch(kind) and kind.endswith("-LOG"):
        return not RANGE[0] <= in_nanometres(np.array(header["CRVAL1"]), unit) <= RANGE[1]
    return header.get("DC-FLAG", 0) == 1 or "LOG" in kind or kind.startswith("LN") or stated.startswith(("LOG", "LN"))


def _stated_unit(header: dict[str, Any]) -> str | None:
    if str(header.get("CUNIT1", "")).strip():
        return str(header["CUNIT1"])
    words = dict(part.split("=", 1) for part in str(header.get("WAT1_001", "")).split() if "=" in part)
    return words.get("units")


def _images(hdulist: Any) -> list[Any]:
    return [hdu for hdu in hdulist if isinstance(hdu, fits.ImageHDU) and hdu.data is not None]


def _only_row(values: Any, where: str) -> np.ndarray:
    """The one spectrum [P] of an image whose other axes have length 1."""
    values = np.asarray(values)
    if values.size != values.shape[-1]:
        raise SpectangleError(
            f"{where} holds an image of shape {values.shape}; one spectrum was expected. Write each to a file of "
            "its own."
        )
    return values.reshape(-1)
