"""Divide spectra by their continuum, or by what stands for it.

Shapes: n spectra, P pixels as they lie in the files. Masked pixels (NaN) take no part and stay masked.

* running_mean, running_median: of `width` pixels (scipy.ndimage); lines stay in it, so that broad ones are weakened.
* polynomial: Chebyshev series, clipped from below (astropy.modeling, FittingWithOutlierRemoval).
* spline: least-squares cubic spline (scipy.interpolate), clipped from below in the same way (astropy.stats.sigma_clip).
"""

from dataclasses import dataclass

import numpy as np
from astropy.stats import sigma_clip
from scipy.interpolate import LSQUnivariateSpline
from scipy.ndimage import median_filter, uniform_filter1d

from spectangle.errors import SpectangleError

__all__ = ["Continuum"]

METHODS = ("none", "running_mean", "running_median", "polynomial", "spline")
ROUNDS = 10  # of clipping


@dataclass(frozen=True)
class Continuum:
    """How the continuum is found.

    Arguments:
        method: ``none``, ``running_mean``, ``running_median``, ``polynomial`` or ``spline``.
        width: Pixels of the running window, an odd number; at the ends the window holds what is there.
        degree: Degree of the polynomial.
        knots: Inner knots of the cubic spline.
        lower, upper: Pixels this many standard deviations below or above a fit leave it, for lines do not belong to the
            continuum.
    """

    method: str = "none"
    width: int = 301
    degree: int = 4
    knots: int = 8
    lower: float = 1.5
    upper: float = 3.0

    def __post_init__(self):
        if self.method not in METHODS:
            raise SpectangleError(f"continuum.method={self.method} is not known; it can be {', '.join(METHODS)}.")
        if self.width < 3 or self.width % 2 == 0:
            raise SpectangleError(f"continuum.width={self.width} must be an odd number of pixels from 3.")
        if self.degree < 0 or self.knots < 1:
            raise SpectangleError(
                f"continuum.degree={self.degree} must not be negative, continuum.knots={self.knots} not below 1."
            )

    def of(self, flux: np.ndarray) -> np.ndarray:
        """The continuum [n, P] of flux [n, P]; NaN where it is not above zero."""
        if self.method == "none":
            return np.ones_like(flux)
        flux = np.asarray(flux, dtype=np.float64)
        continuum = np.stack([self._row(row, np.isfinite(row)) for row in flux]) if len(flux) else flux
        with np.errstate(invalid="ignore"):
            return np.where(continuum > 0, continuum, np.nan)

    def _row(self, flux: np.ndarray, good: np.ndarray) -> np.ndarray:
        if good.sum() < 2 * (self.degree + self.knots + 4):
            return np.full(len(flux), np.nan)
        return getattr(self, f"_{self.method}")(flux, good)

    def _running_mean(self, flux: np.ndarray, good: np.ndarray) -> np.ndarray:
        total = uniform_filter1d(np.where(good, flux, 0), self.width, mode="constant")
        part = uniform_filter1d(good.astype(np.float64), self.width, mode="constant")
        return np.where(part > 0.5 / self.width, total / np.maximum(part, 0.5 / self.width), np.nan)

    def _running_median(self, flux: np.ndarray, good: np.ndarray) -> np.ndarray:
        pixel = np.arange(len(flux))
        return median_filter(
            np.interp(pixel, pixel[good], flux[good]), self.width, mode="nearest"
        )  # interpolated only for the median

    def _polynomial(self, flux: np.ndarray, good: np.ndarray) -> np.ndarray:
        from astropy.modeling.fitting import FittingWithOutlierRemoval, LinearLSQFitter  # half a second
        from astropy.modeling.models import Chebyshev1D

        place = np.linspace(-1, 1, len(flux))
        fitter = FittingWithOutlierRemoval(
            LinearLSQFitter(), sigma_clip, niter=ROUNDS, sigma_lower=self.lower, sigma_upper=self.upper
        )
        fitted, _ = fitter(Chebyshev1D(self.degree, domain=(-1, 1)), place[good], flux[good])
        return fitted(place)

    def _spline(self, flux: np.ndarray, good: np.ndarray) -> np.ndarray:
        place = np.linspace(-1, 1, len(flux))
        kept, fitted = good, None
        for _ in range(ROUNDS):
            knots = np.quantile(
                place[kept], np.linspace(0, 1, self.knots + 2)[1:-1]
            )  # where the data are, or the fit is undefined
            fitted = LSQUnivariateSpline(place[kept], flux[kept], knots)(place)
            clipped = sigma_clip(
                np.where(kept, flux - fitted, np.nan),
                sigma_lower=self.lower,
                sigma_upper=self.upper,
                maxiters=1,
                masked=True,
            )
            if (left := kept & ~np.ma.getmaskarray(np.ma.asarray(clipped))).sum() in (
                kept.sum(),
                0,
            ) or left.sum() < 4 * (self.knots + 4):
                break
            kept = left
        return np.asarray(fitted)
