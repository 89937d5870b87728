"""Wavelengths in air to wavelengths in vacuum, by the formula of Morton (2000, ApJS 130, 403) in specutils.

The index of refraction is a function of the vacuum wavelength, so that the formula is iterated until air comes back.
"""

import numpy as np

from spectangle.errors import SpectangleError
from spectangle.survey.wavelengths import nanometres

__all__ = ["MEDIA", "air_to_vacuum", "in_vacuum", "need_specutils"]

MEDIA = ("air", "vacuum")
FORMULA = "Morton2000"


def in_vacuum(wavelength: np.ndarray, medium: str, where: str, key: str) -> np.ndarray:
    """Wavelengths [P] in nm in vacuum, of those in a medium that a key states.

    Raises:
        SpectangleError: There is no such medium, or they cannot be converted.
    """
    if medium not in MEDIA:
        raise SpectangleError(f"{key}={medium} is not known; it can be {', '.join(MEDIA)}.")
    return air_to_vacuum(wavelength, where) if medium == "air" else wavelength


def air_to_vacuum(wavelength: np.ndarray, where: str) -> np.ndarray:
    """Vacuum wavelengths [P] in nm of air wavelengths [P] in nm.

    Raises:
        SpectangleError: specutils is missing, or the wavelengths lie below 200 nm, where spectra are given in vacuum.
    """
    need_specutils("air wavelengths")
    import astropy.units as u
    from specutils.utils.wcs_utils import air_to_vac

    if wavelength.min() < 200:
        said = f"{where}: air wavelengths from {wavelength.min():g} nm"
        raise SpectangleError(
            f"{said}; below 200 nm they are given in vacuum. State that these are, if they are: medium=vacuum."
        )
    vacuum = air_to_vac(wavelength * u.nm, scheme="iteration", method=FORMULA)
    return nanometres(np.asarray(vacuum.to_value(u.nm)), None, where)


def need_specutils(what: str) -> None:
    """Say how to get specutils where it is missing."""
    try:
        import specutils  # noqa: F401
    except ModuleNotFoundError as error:
        raise SpectangleError(
            f"{what} need {error.name}, which is not installed: pip install 'spectangle[archives]'."
        ) from None
