"""Stars that something is wrong with, and stars with more noise than they had: what quality flags are fitted to.

All sizes are in pixels and in units of the continuum, so that any grid will do. Shapes: n stars, P pixels.
"""

from collections.abc import Iterator

import numpy as np
from numpy.polynomial.legendre import legvander
from scipy.ndimage import gaussian_filter1d

__all__ = ["noise_levels", "noisier", "spoilt_stars"]

LOWEST, STEP, MOST = 10.0, 1.5, 12  # S/N of the noisiest stars, steps between levels, number of levels


def spoilt_stars(flux: np.ndarray, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the stars [n, P] spoilt in one way after the other: continuum, velocity, resolution, line cores, company.

    Arguments:
        flux: Normal stars without masked pixels [n, P].
        random: What is drawn from.
    """
    yield flux * (1 + 0.02 * _curves(len(flux), flux.shape[1], random))
    yield _shifted(flux, random.choice([-3, -2, -1, 1, 2, 3], len(flux)))
    yield gaussian_filter1d(flux, 1.4, axis=1)
    yield flux + 0.3 * _cores(flux)
    other = _shifted(flux[random.permutation(len(flux))], random.choice([-8, -6, -4, 4, 6, 8], len(flux)))
    yield (flux + 0.5 * other) / 1.5


def _curves(count: int, n_pixels: int, random: np.random.Generator) -> np.ndarray:
    """Smooth curves [count, P] of root mean square 1: straight, bent and S-shaped."""
    curves = random.standard_normal((count, 3)) @ legvander(np.linspace(-1, 1, n_pixels), 3)[:, 1:].T
    return curves / np.sqrt(np.mean(curves**2, axis=1, keepdims=True))


def _shifted(flux: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Spectra [n, P] moved by whole pixels [n]; the ends are repeated."""
    places = np.clip(np.arange(flux.shape[1]) - pixels[:, None], 0, flux.shape[1] - 1)
    return np.take_along_axis(flux, places, axis=1)


def _cores(flux: np.ndarray) -> np.ndarray:
    """Emission [n, P] in the cores of each star's deepest lines, as high as these are deep."""
    depth = np.clip(flux.max(axis=1, keepdims=True) - gaussian_filter1d(flux, 1.0, axis=1), 0, None)
    deepest = np.maximum(depth.max(axis=1, keepdims=True), 1e-6)
    return deepest * (depth / deepest) ** 4


def noise_levels(level: np.ndarray) -> np.ndarray:
    """S/N to which stars of S/N `level` [n] are degraded, from 10 to nearly the best of them."""
    best = float(np.quantile(level, 0.99))
    if best <= LOWEST:
        return np.empty(0)
    return np.geomspace(LOWEST, best, min(MOST, int(np.log(best / LOWEST) / np.log(STEP)) + 2))[:-1]


def noisier(
    flux: np.ndarray, error: np.ndarray, level: np.ndarray, target: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Flux and errors [n, P] of stars of S/N `level` [n], with noise added until they have the S/N `target`."""
    factor = np.maximum(level / target, 1)[:, None].astype(np.float32)
    added = error * np.sqrt(factor**2 - 1) * random.standard_normal(flux.shape, dtype=np.float32)
    return flux + added, error * factor
