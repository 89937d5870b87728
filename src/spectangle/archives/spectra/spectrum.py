"""One spectrum on its way from a file to a chunk: masked, cut to a window, divided by its continuum.

Shapes: n spectra on one grid, P pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spectangle.archives.spectra.continuum import Continuum
from spectangle.errors import SpectangleError
from spectangle.survey.given import FILL

__all__ = ["Spectrum", "normalised"]


@dataclass(frozen=True)
class Spectrum:
    """Spectra on one grid.

    Arguments:
        wavelength: Wavelengths [P] in nm.
        flux: Flux [P] or [n, P], in any unit.
        error: Its standard deviation, in the same unit and shape; None where the file has none.
        medium: ``air``, ``vacuum``, or None where the file does not say.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    error: np.ndarray | None = None
    medium: str | None = None


def normalised(spectrum: Spectrum, continuum: Continuum, window: Sequence[float] | None, where: str) -> Spectrum:
    """Mask what is no flux, divide flux and error [n, P] by the continuum, and cut to a window in nm.

    Pixels of zero or negative flux or error are masked: no star emits them. So are fill values such as 1e20, flux or
    error. The continuum is found on all pixels, so that the window's edges have neighbours.

    Raises:
        SpectangleError: Fewer than two pixels lie in the window.
    """
    flux, error = np.asarray(spectrum.flux, dtype=np.float64), spectrum.error
    with np.errstate(invalid="ignore"):
        good = np.isfinite(flux) & (flux > 0)
        largest = _largest(np.where(good, flux, np.nan))
        good &= flux < largest
        if error is not None:
            good &= (error > 0) & (error < largest)
    level = continuum.of(np.where(good, flux, np.nan))
    inside = slice(None) if window is None else _inside(spectrum.wavelength, window, where)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        values = [
            None if v is None else np.where(good, v / level, np.nan).astype(np.float32)[:, inside]
            for v in (flux, error)
        ]
    assert values[0] is not None
    return Spectrum(spectrum.wavelength[inside], values[0], values[1], spectrum.medium)


def _largest(flux: np.ndarray) -> np.ndarray:
    """What fill values lie above [n, 1]: 1e15, or 1000 times the flux where its unit is so small that it is larger."""
    ordinary = np.where(flux <= FILL[1], flux, np.nan)
    usual = np.where(np.isfinite(ordinary).any(axis=-1, keepdims=True), ordinary, flux)
    known = np.isfinite(usual).any(axis=-1, keepdims=True)
    return np.maximum(1e3 * np.nanmedian(np.where(known, usual, 0.0), axis=-1, keepdims=True), FILL[1])


def _inside(wavelength: np.ndarray, window: Sequence[float], where: str) -> slice:
    first, last = np.searchsorted(wavelength, window[0], "left"), np.searchsorted(wavelength, window[1], "right")
    if last - first < 2:
        covered = f"it covers {wavelength[0]:g} to {wavelength[-1]:g} nm"
        raise SpectangleError(
            f"{where}: {max(last - first, 0)} pixels lie in archive.window={list(window)}; {covered}."
        )
    return slice(int(first), int(last))
