"""Wavelength grids: nanometres in vacuum, or a sentence that says what else they look like.

Gaia RVS bulk files have no wavelength column; the grid is 846 + 0.01 i nm in vacuum (Gaia DR3 documentation 20.12.1,
rvs_mean_spectrum).
"""

import astropy.units as u
import numpy as np

from spectangle.errors import SpectangleError

__all__ = ["check_range", "check_vacuum", "linear_grid", "nanometres"]

CA_II_VACUUM, CA_II_AIR = 854.444, 854.209  # nm, the strongest line of the triplet


def linear_grid(n_pixels: int, start: float = 846.0, step: float = 0.01) -> np.ndarray:
    """The grid start + step * i [P] in nm."""
    return np.round(start + step * np.arange(n_pixels), 6)


def nanometres(wavelength: np.ndarray, unit, where: str) -> np.ndarray:
    """Convert wavelengths [P] from a stated unit (None: they are nm) and check that they increase.

    Raises:
        SpectangleError: The unit is unknown or no length, a value is missing, or the grid does not increase.
    """
    wavelength = np.asarray(wavelength, dtype=np.float64)
    if unit is not None and str(unit):
        try:
            wavelength = wavelength * u.Unit(str(unit)).to(u.nm)
        except (ValueError, u.UnitConversionError):
            raise SpectangleError(
                f"{where}: the wavelength unit '{unit}' is no unit of length; nm was expected."
            ) from None
    if wavelength.ndim != 1 or len(wavelength) < 2 or not np.all(np.diff(wavelength) > 0):
        raise SpectangleError(
            f"{where}: the wavelengths do not increase from pixel to pixel, or some are missing; one increasing "
            "grid was expected."
        )
    return wavelength


def check_range(
    wavelength: np.ndarray, where: str, expected: tuple[float, float] = (100.0, 3000.0), key: str = ""
) -> None:
    """Refuse wavelengths [P] in nm outside the expected range, and name the unit that they seem to have, and the key
    that states it.
    """
    low, high = expected
    if low <= wavelength[0] and wavelength[-1] <= high:
        return
    guess = ""
    for unit in ("Angstrom", "micron", "m"):
        scaled = wavelength * u.Unit(unit).to(u.nm)
        if low <= scaled[0] and scaled[-1] <= high:
            guess = f" They look like {unit}: convert them" + (f", or state {key}={unit}." if key else " to nm.")
    raise SpectangleError(
        f"{where}: the wavelengths run from {wavelength[0]:g} to {wavelength[-1]:g}, not within {low:g} to "
        f"{high:g} nm.{guess}"
    )


def check_vacuum(wavelength: np.ndarray, flux: np.ndarray, where: str, key: str = "", margin: float = 0.06) -> None:
    """Refuse rest-frame RVS spectra whose Ca II 854 nm line lies where it lies in air.

    The line is at 854.444 nm in vacuum and 854.209 nm in air. Nothing is checked where the grid does not cover it or
    the mean spectrum shows no clear line.

    Arguments:
        wavelength: Grid [P] in nm.
        flux: Spectra [n, P]; their mean is looked at.
        where: File, for the sentence.
        key: What states that they are in air, where the command can convert them.
        margin: Distance in nm at which the line is in its place.
    """
    window = (wavelength > CA_II_AIR - 0.4) & (wavelength < CA_II_VACUUM + 0.4)
    if window.sum() < 8 or len(flux) == 0:
        return
    good = np.isfinite(flux[:, window])
    line = np.where(good, flux[:, window], 0).sum(axis=0) / good.sum(axis=0).clip(1)
    line[~good.any(axis=0)] = 1.0
    centre = wavelength[window][np.argmin(line)]
    if line.min() < 0.85 * np.median(line[[0, 1, -2, -1]]) and abs(centre - CA_II_AIR) < margin:
        raise SpectangleError(
            f"{where}: the Ca II line lies at {centre:.3f} nm, its place in air ({CA_II_AIR}); in vacuum it is at "
            f"{CA_II_VACUUM}. "
            + (f"State {key}=air to convert them." if key else "Convert the wavelengths to vacuum first.")
        )
