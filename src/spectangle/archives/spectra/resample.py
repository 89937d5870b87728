"""From the archive's pixels to the survey's: means of neighbours, or flux-conserving resampling to any grid.

Shapes: n stars, P pixels of the archive, Q pixels of the survey. Missing pixels weigh nothing.

* inverse_variance: f = sum(f_i / s_i^2) / sum(1 / s_i^2), s = 1 / sqrt(sum(1 / s_i^2)) over `factor` neighbours.
* mean: f = mean(f_i), s = sqrt(sum(s_i^2)) / m over the m good ones.
* resample: f = sum(o_i f_i) / sum(o_i), s = sqrt(sum(o_i^2 s_i^2)) / sum(o_i), with o_i the overlap of pixel i with the
  new one (SpectRes, Carnall 2017, arXiv:1705.05165).

The errors take pixels as independent; Gaia's 0.01 nm pixels oversample the instrument's 0.0245 nm, so they are too
small.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from spectangle.errors import SpectangleError

__all__ = ["Pixels", "bin_pixels", "resample_pixels"]


@dataclass(frozen=True)
class Pixels:
    """How archive pixels become survey pixels, and what happens to missing ones.

    Arguments:
        method: ``inverse_variance``, ``mean``, ``resample`` or ``none``.
        factor: Neighbours to a pixel for the two means; a remainder at the red end is dropped (2401 = 3 * 800 + 1).
        start, step, number: The grid of ``resample`` in nm: start + step * i; None: found from the files, where the
            archive can.
        min_good: Good neighbours that a mean needs (for ``resample``: this part of ``factor`` as covered fraction),
            else it is masked.
        fill: What a masked pixel becomes: ``nan`` (kept as a mask), ``one`` (the continuum) or ``interpolate`` (its
            good neighbours; the edges repeat the last good pixel).
        nonpositive_error: ``skip_star`` or ``mask_pixel``, see :func:`spectra.drop_bad_rows`.
    """

    method: str = "inverse_variance"
    factor: int = 3
    start: float | None = 846.015
    step: float | None = 0.03
    number: int | None = 800
    min_good: int = 2
    fill: str = "nan"
    nonpositive_error: str = "skip_star"

    def __post_init__(self):
        for key, value, options in (
            ("method", self.method, ("inverse_variance", "mean", "resample", "none")),
            ("fill", self.fill, ("nan", "one", "interpolate")),
            ("nonpositive_error", self.nonpositive_error, ("skip_star", "mask_pixel")),
        ):
            if value not in options:
                raise SpectangleError(f"pixels.{key}={value} is not known; it can be {', '.join(options)}.")
        if self.method in ("inverse_variance", "mean") and not 1 <= self.min_good <= self.factor:
            raise SpectangleError(
                f"pixels.min_good={self.min_good} must lie between 1 and pixels.factor={self.factor}."
            )

    def grid(self, wavelength: np.ndarray) -> np.ndarray:
        """The survey's wavelengths [Q] in nm for the archive's [P]."""
        if self.method == "none":
            return wavelength
        if self.method == "resample":
            if self.start is None or self.step is None or self.number is None:
                raise SpectangleError(
                    "pixels.start, pixels.step and pixels.number must be given: only archive=spectra1d finds them "
                    "from the files."
                )
            return np.round(self.start + self.step * np.arange(self.number), 6)
        q = len(wavelength) // self.factor
        if q < 2:
            raise SpectangleError(
                f"pixels.factor={self.factor} leaves {q} of {len(wavelength)} pixels; use a smaller factor."
            )
        return wavelength[: q * self.factor].reshape(q, self.factor).mean(axis=1)

    def apply(self, wavelength: np.ndarray, flux: np.ndarray, error: np.ndarray | None):
        """Turn flux and error [n, P] into flux and error [n, Q] with NaN in the masked pixels (before
        :meth:`filled`).
        """
        if self.method == "none":
            return flux, error
        if self.method == "resample":
            return resample_pixels(wavelength, flux, error, self.grid(wavelength), self.min_good / self.factor)
        return bin_pixels(flux, error, self.factor, self.method, self.min_good)

    def filled(self, flux: np.ndarray) -> np.ndarray:
        """Fill the masked pixels of flux [n, Q] as `fill` says."""
        masked = ~np.isfinite(flux)
        if self.fill == "nan" or not masked.any():
            return flux
        if self.fill == "one":
            return np.where(masked, np.float32(1), flux)
        flux = flux.copy()
        pixel = np.arange(flux.shape[1])
        for i in np.flatnonzero(masked.any(axis=1) & ~masked.all(axis=1)):
            flux[i, masked[i]] = np.interp(pixel[masked[i]], pixel[~masked[i]], flux[i, ~masked[i]])
        return flux


def bin_pixels(
    flux: np.ndarray, error: np.ndarray | None, factor: int, method: str = "inverse_variance", min_good: int = 1
):
    """Average each `factor` neighbours of flux and error [n, P]; return flux and error [n, P // factor] float32.

    Without errors, the inverse-variance mean is the plain mean.
    """
    flux = _groups(flux, factor)
    error = None if error is None else _groups(error, factor)
    good = np.isfinite(flux) if error is None else np.isfinite(flux) & np.isfinite(error) & (error > 0)
    enough = good.sum(axis=2) >= min_good
    with np.errstate(divide="ignore", invalid="ignore"):
        if method == "inverse_variance" and error is not None:
            weight = np.where(good, 1 / error**2, np.float32(0))
            total = weight.sum(axis=2)
            out, out_error = np.einsum("nqf,nqf->nq", weight, np.where(good, flux, 0)) / total, 1 / np.sqrt(total)
        else:
            number = good.sum(axis=2).astype(np.float32)
            out = np.where(good, flux, 0).sum(axis=2) / number
            out_error = None if error is None else np.sqrt(np.where(good, error**2, 0).sum(axis=2)) / number
    nan = np.float32(np.nan)
    return np.where(enough, out, nan), None if out_error is None else np.where(enough, out_error, nan)


def resample_pixels(
    wavelength: np.ndarray, flux: np.ndarray, error: np.ndarray | None, grid: np.ndarray, min_covered: float = 0.5
):
    """Resample flux and error [n, P] to a grid [Q]; pixels covered less than `min_covered` by good ones are NaN."""
    overlap, squared = _overlaps(*(np.asarray(one, dtype=np.float64).tobytes() for one in (wavelength, grid)))
    good = np.isfinite(flux) if error is None else np.isfinite(flux) & np.isfinite(error) & (error > 0)
    total = overlap @ good.T.astype(np.float64)
    width = np.diff(_edges(grid))[:, None]
    enough = total >= min_covered * width * (1 - 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.where(enough & (total > 0), (overlap @ np.where(good, flux, 0).T) / total, np.nan).T.astype(np.float32)
        if error is None:
            return out, None
        variance = squared @ np.where(good, error.astype(np.float64) ** 2, 0).T
        return out, np.where(enough & (total > 0), np.sqrt(variance) / total, np.nan).T.astype(np.float32)


def _groups(values: np.ndarray, factor: int) -> np.ndarray:
    q = values.shape[1] // factor
    return values[:, : q * factor].reshape(len(values), q, factor)


def _edges(centres: np.ndarray) -> np.ndarray:
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


@lru_cache(maxsize=4)  # a folder of files with a star each has one grid
def _overlaps(old: bytes, new: bytes) -> tuple[csr_array, csr_array]:
    """Length [Q, P] in nm that each old pixel shares with each new one, and its square, for grids [P] and [Q] as bytes
    of float64.
    """
    old_edges, new_edges = _edges(np.frombuffer(old)), _edges(np.frombuffer(new))
    n_old, n_new = len(old_edges) - 1, len(new_edges) - 1
    first = np.clip(np.searchsorted(old_edges, new_edges[:-1], "right") - 1, 0, n_old - 1)
    last = np.clip(np.searchsorted(old_edges, new_edges[1:], "left"), 1, n_old)
    counts = np.maximum(last - first, 0)
    row = np.repeat(np.arange(n_new), counts)
    column = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
    shared = np.minimum(old_edges[column + 1], new_edges[row + 1]) - np.maximum(old_edges[column], new_edges[row])
    overlap = csr_array((shared.clip(0), (row, column)), shape=(n_new, n_old))
    return overlap, overlap.power(2)
