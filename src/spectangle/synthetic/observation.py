r"""What the instrument and the pipeline do to a clean spectrum: velocity residual, continuum tilt, noise, bad pixels.

Shapes: N stars, P pixels.
"""

import numpy as np

from spectangle.synthetic.constants import SPEED_OF_LIGHT_KMS
from spectangle.synthetic.synthesis import WAVELENGTH

__all__ = ["BAD_PIXEL_ERROR", "observe_stars", "shift_velocity"]

TILT, LEVEL = 0.004, 0.003  # scatter of the continuum: from its middle to its end, and as a whole
BAD_PIXELS = 1e-3  # fraction of the pixels
BAD_PIXEL_ERROR = 10.0  # flux error of a bad pixel, in units of the continuum
ERROR_RIPPLE = 0.05  # scatter of the flux error from pixel to pixel
FLOOR = 0.1  # flux below which the noise shrinks no more
KMS_PER_PIXEL = SPEED_OF_LIGHT_KMS * (WAVELENGTH[1] - WAVELENGTH[0]) / WAVELENGTH[len(WAVELENGTH) // 2]
TAPS = np.arange(-3, 5)  # neighbours of the 8-point Lagrange interpolation


def observe_stars(
    clean: np.ndarray, snr: np.ndarray, velocity: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Turn clean spectra into observed ones.

    Arguments:
        clean [N, P]: Flux over continuum.
        snr, velocity [N]: Signal-to-noise ratio of the continuum, per pixel; residual radial velocity in km/s.
        rng: What all of it is drawn from.

    Returns:
        Flux and flux error, float32 [N, P]. Bad pixels have flux NaN and a finite flux error of
            :data:`BAD_PIXEL_ERROR`.
    """
    flux = shift_velocity(clean, velocity) * draw_continuum(len(clean), rng)
    error = draw_error(flux, snr, rng)
    flux += error * rng.standard_normal(flux.shape, dtype=np.float32)
    spoil_pixels(flux, error, rng)
    return flux, error


def shift_velocity(flux: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Shift spectra [N, P] to the red by velocities [N] in km/s of about one pixel (10.5 km/s) or less.

    A pixel counts as the same velocity all over the window, which is true to 1.4 % of the shift.
    """
    place = -np.asarray(velocity) / KMS_PER_PIXEL
    whole = np.floor(place).astype(int)
    weights = _lagrange(place - whole).astype(flux.dtype)
    reach = int(np.abs(whole).max()) + TAPS.max()
    padded = np.pad(flux, ((0, 0), (reach, reach)), mode="edge")
    shifted = np.zeros_like(flux)
    for pixels in np.unique(whole):
        stars = whole == pixels
        for tap, weight in zip(TAPS, weights, strict=True):
            start = reach + pixels + tap
            shifted[stars] += weight[stars, None] * padded[stars, start : start + flux.shape[1]]
    return shifted


def _lagrange(fraction: np.ndarray) -> np.ndarray:
    """Return the weights [8, N] of the taps for positions [N] between tap 0 and tap 1."""
    return np.stack([np.prod([(fraction - k) / (tap - k) for k in TAPS if k != tap], axis=0) for tap in TAPS])


def draw_continuum(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw straight continua [count, P] about 1: what normalisation leaves behind."""
    level, tilt = LEVEL * rng.standard_normal((count, 1)), TILT * rng.standard_normal((count, 1))
    return (1.0 + level + tilt * np.linspace(-1.0, 1.0, len(WAVELENGTH))).astype(np.float32)


def draw_error(flux: np.ndarray, snr: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    r"""Draw the flux errors [N, P]: photon noise :math:`\sqrt{f} / (S/N)` with a ripple from pixel to pixel."""
    ripple = 1.0 + ERROR_RIPPLE * rng.standard_normal(flux.shape, dtype=np.float32)
    return np.sqrt(np.maximum(flux, FLOOR)) / snr[:, None].astype(np.float32) * np.abs(ripple)


def spoil_pixels(flux: np.ndarray, error: np.ndarray, rng: np.random.Generator) -> None:
    """Make about one pixel in a thousand useless, in place."""
    places = rng.integers(flux.size, size=rng.binomial(flux.size, BAD_PIXELS))
    flux.flat[places] = np.nan
    error.flat[places] = BAD_PIXEL_ERROR
