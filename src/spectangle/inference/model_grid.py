"""Spectra from the grid that they came on to the grid of a model.

Shapes: n stars, Q pixels as they came, P pixels of the model.
"""

import numpy as np

from spectangle.archives.spectra.resample import bin_pixels, resample_pixels
from spectangle.errors import SpectangleError

__all__ = ["to_grid"]

TOLERANCE = 0.02  # of a pixel: grids that agree so well are the same


def to_grid(
    wavelength: np.ndarray, flux: np.ndarray, error: np.ndarray | None, grid: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Put flux and error [n, Q] on a grid [P]: as they are, as means of neighbours, or resampled with conserved flux.

    Means of neighbours (weighted with the errors) are what spectangle prepare makes by default of an archive's pixels.

    Arguments:
        wavelength: Grid [Q] in nm, vacuum.
        flux, error: Spectra, and errors or None; NaN = masked pixel.
        grid: Grid [P] of the model in nm, vacuum.
        where: What the spectra are, for the sentence.

    Raises:
        SpectangleError: The spectra do not cover the grid, or their pixels are far wider than its own.
    """
    pixel = float(np.median(np.diff(grid)))
    if _same(wavelength, grid, pixel):
        return flux, error
    if factor := _neighbours(wavelength, grid, pixel):
        return bin_pixels(flux, error, factor, min_good=(2 * factor + 2) // 3)
    _check_cover(wavelength, grid, pixel, where)
    return resample_pixels(wavelength, flux, error, grid)


def _same(a: np.ndarray, b: np.ndarray, pixel: float) -> bool:
    return len(a) == len(b) and bool(np.abs(a - b).max() < TOLERANCE * pixel)


def _neighbours(wavelength: np.ndarray, grid: np.ndarray, pixel: float) -> int:
    """How many neighbours make a pixel of the grid; 0 if no whole number does."""
    factor = len(wavelength) // len(grid)
    if factor < 2:
        return 0
    means = wavelength[: factor * len(grid)].reshape(len(grid), factor).mean(axis=1)
    return factor if _same(means, grid, pixel) else 0


def _check_cover(wavelength: np.ndarray, grid: np.ndarray, pixel: float, where: str) -> None:
    low, high = wavelength[0] - pixel / 2, wavelength[-1] + pixel / 2
    if low > grid[0] + TOLERANCE * pixel or high < grid[-1] - TOLERANCE * pixel:
        hint = " They look like Angstrom: divide them by 10." if 9 * grid[0] < wavelength[0] < 11 * grid[-1] else ""
        raise SpectangleError(
            f"{where}: the wavelengths run from {wavelength[0]:.3f} to {wavelength[-1]:.3f} nm, but the model needs "
            f"{grid[0]:.3f} to {grid[-1]:.3f} nm.{hint} Use spectra that cover this range, or train on what they "
            "cover: "
            "spectangle prepare pixels.method=resample."
        )
    theirs = float(np.median(np.diff(wavelength)))
    if theirs > 3 * pixel:
        raise SpectangleError(
            f"{where}: the pixels are {theirs:.3f} nm wide and the model was trained on {pixel:.3f} nm; use "
            "spectra of a similar resolution."
        )
