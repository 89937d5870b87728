"""Wavelength grids: nanometres in vacuum, or a sentence that says what else they look like.

Gaia RVS bulk files have no wavelength column; the grid is 846 + 0.01 i nm in vacuum (Gaia DR3 documentation 20.12.1,
rvs_mean_spectrum).
"""

import logging

import astropy.units as u
import numpy as np

from spectangle.errors import SpectangleError

__all__ = ["VacuumCheck", "check_range", "check_vacuum", "linear_grid", "nanometres"]

CA_II_VACUUM, CA_II_AIR = 854.444, 854.209  # nm, the strongest line of the triplet
LINE = np.arange(CA_II_AIR - 0.44, CA_II_VACUUM + 0.44, 0.02)  # nm, where it is looked for
MARGIN = 0.06  # nm from its place in air
ENOUGH, MANY = 20, 256  # stars that can be refused; stars that are looked at together
SIGMAS = 3.0  # by which the line must be deeper at its place in air than at that in vacuum

log = logging.getLogger(__name__)


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


class VacuumCheck:
    """Refuse rest-frame RVS spectra whose Ca II 854 nm line lies where it lies in air: 854.209 nm, not 854.444 nm.

    A sample is judged, never a star: noise, a spoilt pixel or a velocity of -80 km/s put the line of one there. Stars
    that come a few at a time are judged together, on whatever grids they came. Nothing is said where the grid does not
    cover the line or the median spectrum shows no clear one, and too few stars are a warning at most.

    Arguments:
        key: What states that they are in air, where the command can convert them.
    """

    def __init__(self, key: str = ""):
        self._key = key
        self._waiting: list[np.ndarray] = []
        self._where: list[str] = []

    def add(self, wavelength: np.ndarray, flux: np.ndarray, where: str) -> None:
        """Look at spectra [n, P] on a grid [P] in nm; `where` is their file, for the sentence.

        Raises:
            SpectangleError: The stars seen so far are in air.
        """
        covered = wavelength[0] <= LINE[0] and wavelength[-1] >= LINE[-1]
        if not covered or ((wavelength > LINE[0]) & (wavelength < LINE[-1])).sum() < 8 or len(flux) == 0:
            return
        nearest = np.searchsorted((wavelength[1:] + wavelength[:-1]) / 2, LINE)
        near = flux[:MANY, nearest]
        if len(near) >= ENOUGH:
            self._judge(near, where)
            return
        self._waiting.append(near)
        self._where.append(where)
        if sum(map(len, self._waiting)) >= MANY:
            self.finish()

    def finish(self) -> None:
        """Judge the stars that came a few at a time.

        Raises:
            SpectangleError: They are in air.
        """
        waiting, where = self._waiting, list(dict.fromkeys(self._where))
        self._waiting, self._where = [], []
        if waiting:
            more = f" and {len(where) - 1} more" if len(where) > 1 else ""
            self._judge(np.concatenate(waiting), f"{where[0]}{more}")

    def _judge(self, near: np.ndarray, where: str) -> None:
        """Judge the flux [n, L] of n stars near the line."""
        stars = _box(near[np.isfinite(near).all(axis=1)])
        if not len(stars):
            return
        line, places = np.median(stars, axis=0), _box(LINE[None])[0]
        centre = places[np.argmin(line)]
        if line.min() >= 0.85 * np.median(line[[0, 1, -2, -1]]) or abs(centre - CA_II_AIR) >= MARGIN:
            return
        air, vacuum = (np.argmin(np.abs(places - place)) for place in (CA_II_AIR, CA_II_VACUUM))
        deeper = stars[:, vacuum] - stars[:, air]
        scatter = 1.4826 * np.median(np.abs(deeper - np.median(deeper)))
        said = (
            f"{where}: the Ca II line lies at {centre:.3f} nm, its place in air ({CA_II_AIR}); in vacuum it is at "
            f"{CA_II_VACUUM}. "
        )
        if len(stars) >= ENOUGH and np.median(deeper) > SIGMAS * 1.2533 * scatter / np.sqrt(len(stars)):
            advice = (
                f"State {self._key}=air to convert them." if self._key else "Convert the wavelengths to vacuum first."
            )
            raise SpectangleError(said + advice)
        log.warning(
            "%sThey are read as they are: %d spectra are too few, or too noisy, to tell air from noise and velocities. "
            "Convert them first if their wavelengths are in air.",
            said,
            len(stars),
        )


def check_vacuum(wavelength: np.ndarray, flux: np.ndarray, where: str, key: str = "") -> None:
    """Judge spectra [n, P] on one grid [P] in nm at once, see :class:`VacuumCheck`.

    Raises:
        SpectangleError: They are in air.
    """
    check = VacuumCheck(key)
    check.add(wavelength, flux, where)
    check.finish()


def _box(near: np.ndarray) -> np.ndarray:
    """Means over 0.1 nm [n, L - 4] of values [n, L]: narrower than the line, and wide enough for noise to even out."""
    return np.lib.stride_tricks.sliding_window_view(near, 5, axis=1).mean(axis=2, dtype=np.float64)
