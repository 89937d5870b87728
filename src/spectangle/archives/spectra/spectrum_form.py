"""How the wavelengths of a spectrum are to be understood: their unit, their medium, where the file says so and where it
does not.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np

from spectangle.archives.spectra.air import air_to_vacuum
from spectangle.archives.spectra.spectrum import Spectrum
from spectangle.errors import SpectangleError
from spectangle.survey.wavelengths import check_range, nanometres

__all__ = ["RANGE", "SpectrumForm", "Unstated", "in_nanometres", "medium_of", "unit_of", "without_log"]

SPELLINGS = {  # what headers say that astropy does not know
    **dict.fromkeys(("a", "aa", "ang", "angs", "angstrom", "angstroms", "angstroem", "å"), "Angstrom"),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres", "nanom"), "nm"),
    **dict.fromkeys(
        ("um", "µm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"), "micron"
    ),
}
RANGE = (100.0, 30000.0)  # nm


class Unstated(SpectangleError):
    """Something that the files do not say and a key must: no reason to skip file after file."""


@dataclass(frozen=True)
class SpectrumForm:
    """What holds for all files, and how each is read.

    Arguments:
        format: Name of a loader of specutils; None: found from the file.
        wavelength_unit: Unit where the file names none.
        medium: ``air`` or ``vacuum``, whatever the files say; ``header``: as they say, and one that does not is
            refused.
        columns: {wavelength, flux, flux_error: column} of tables; default: common names.
        reference_pixel: CRPIX1 of FITS images that have none.
    """

    format: str | None = None
    wavelength_unit: str = "Angstrom"
    medium: str = "header"
    columns: Mapping[str, str | None] = field(default_factory=dict)
    reference_pixel: float | None = None

    def __post_init__(self):
        if self.medium not in ("header", "air", "vacuum"):
            raise SpectangleError(f"archive.form.medium={self.medium} is not known; it can be header, air, vacuum.")
        if wrong := set(self.columns) - {"wavelength", "flux", "flux_error"}:
            raise SpectangleError(
                f"archive.form.columns has the key '{sorted(wrong)[0]}'; it can have wavelength, flux, flux_error."
            )
        unit_of(self.wavelength_unit, "archive.form.wavelength_unit")

    @property
    def named(self) -> dict[str, str]:
        """The columns that are given."""
        return {key: column for key, column in self.columns.items() if column is not None}

    def in_vacuum(self, spectrum: Spectrum, where: str) -> Spectrum:
        """The spectrum on increasing wavelengths in nm in vacuum, flux and error [1, P].

        Raises:
            Unstated: Nobody says whether they are in air or in vacuum.
            SpectangleError: They do not increase, or are no wavelengths of 100 nm to 30 micron.
        """
        order = slice(None, None, -1 if spectrum.wavelength[0] > spectrum.wavelength[-1] else 1)
        wavelength = nanometres(spectrum.wavelength[order], None, where)
        check_range(wavelength, where, RANGE)
        medium = spectrum.medium if self.medium == "header" else self.medium
        if medium is None:
            key = "archive.form.medium"
            raise Unstated(
                f"{where} does not say whether its wavelengths are in air or in vacuum; state it: {key}=air or "
                f"{key}=vacuum."
            )
        if medium == "air":
            wavelength = air_to_vacuum(wavelength, where)
        error = None if spectrum.error is None else spectrum.error[None, order]
        return Spectrum(wavelength, spectrum.flux[None, order], error, "vacuum")


def unit_of(text: Any, where: str) -> Any:
    """The unit that a header means.

    Raises:
        SpectangleError: It is none of a wavelength, frequency, wavenumber or energy.
    """
    try:
        plain = re.sub(r"^(log10|log|ln)\W*(.*?)\)?$", r"\2", str(text).strip(), flags=re.IGNORECASE)
        unit = u.Unit(SPELLINGS.get(plain.lower(), plain))
        unit.to(u.nm, 1.0, equivalencies=u.spectral())
    except (ValueError, TypeError, u.UnitConversionError):
        raise SpectangleError(
            f"{where}: '{text}' is no unit of wavelength; Angstrom, nm, micron or the like was expected."
        ) from None
    return unit


def in_nanometres(values: np.ndarray, unit: Any) -> np.ndarray:
    """Wavelengths in nm of wavelengths, frequencies, wavenumbers or energies [P]."""
    with np.errstate(divide="ignore"):
        return (np.asarray(values, dtype=np.float64) * unit).to_value(u.nm, equivalencies=u.spectral())


def without_log(values: np.ndarray, unit: Any, where: str) -> np.ndarray:
    """Undo a logarithm of base 10 or e [P], whichever gives wavelengths.

    Raises:
        SpectangleError: Neither does.
    """
    for base in (10.0, np.e):
        with np.errstate(over="ignore"):
            wavelength = in_nanometres(base**values, unit)
        if np.all(wavelength > RANGE[0]) and np.all(wavelength < RANGE[1]):
            return base**values
    raise SpectangleError(
        f"{where}: logarithms of wavelengths from {values[0]:g} to {values[-1]:g} give no {unit} of 100 nm to 30 "
        "micron."
    )


def medium_of(header: Mapping[str, Any], column: str = "") -> str | None:
    """``air``, ``vacuum`` or None, by a header and the name of the wavelengths' column.

    CTYPE1 = AWAV or WAVE (Greisen et al. 2006, A&A 446, 747), AIRORVAC (IRAF), VACUUM (SDSS), MEDIUM; `wave_air`,
    `wave_vac`; a comment of a text file that has one of the words air and vacuum.
    """
    said = {str(key).upper(): header[key] for key in header}
    kind = str(said.get("CTYPE1", "")).upper().strip()
    if re.fullmatch(r"(AWAV|WAVE)(-[A-Z0-9]{3})?", kind):
        return "air" if kind.startswith("AWAV") else "vacuum"
    if "VACUUM" in said:
        return "vacuum" if str(said["VACUUM"]).strip().upper() in ("1", "T", "TRUE", "YES") else "air"
    comments = said.get("COMMENTS", [])
    texts = (
        [str(said.get(key, "")) for key in ("AIRORVAC", "MEDIUM")]
        + [column]
        + [str(line) for line in comments if isinstance(comments, list)]
    )
    for text in texts:
        words = {word[:3] for word in re.split(r"[\W_]+", text.lower()) if word in ("air", "vac", "vacuum")}
        if len(words) == 1:
            return "air" if words == {"air"} else "vacuum"
    return None
