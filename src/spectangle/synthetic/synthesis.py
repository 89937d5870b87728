r"""Spectra of the Gaia RVS window from first principles: 846-870 nm, R = 11,500, 800 pixels, LTE.

Shapes: S stars, D layers, W = 2,367 fine wavelengths, P = 800 pixels.

Known limits: no molecules (wrong for M stars and for giants below about 4,200 K), LTE line cores.
"""

import numpy as np

from spectangle.synthetic.atmosphere import Atmosphere, model_atmosphere
from spectangle.synthetic.broadening import microturbulence
from spectangle.synthetic.constants import SECOND_RADIATION, SPEED_OF_LIGHT_KMS, WINDOW_ANGSTROM
from spectangle.synthetic.continuous_opacity import continuous_opacity
from spectangle.synthetic.hydrogen import paschen_opacity
from spectangle.synthetic.lines import line_opacity, strongest_lines

__all__ = ["WAVELENGTH", "air_wavelength", "fine_spectra", "observe", "synthesise"]

WAVELENGTH = 846.0 + 0.03 * np.arange(800) + 0.015  # nm, vacuum: the pixels [P]
RESOLVING_POWER = 11_500.0
FINE_STEP = 1.0 / 80_000.0  # of ln wavelength
FINE = 8452.0 * np.exp(np.arange(int(np.log(8706.0 / 8452.0) / FINE_STEP)) * FINE_STEP)  # Angstrom, air [W]
BROADENING_TO_SIGMA = 1.0 / 1.7  # of the Gaussian that stands for rotation and macroturbulence
FWHM_TO_SIGMA = 1.0 / 2.3548
# Three-point Gauss-Legendre quadrature over the cosine of the angle of emission.
COSINES, COSINE_WEIGHTS = (0.1127, 0.5, 0.8873), (0.27778, 0.44444, 0.27778)


def air_wavelength(vacuum: np.ndarray) -> np.ndarray:
    """Convert vacuum to air wavelengths, nm to nm (Birch and Downs 1994, Metrologia 31, 315)."""
    square = (1e3 / vacuum) ** 2
    return vacuum / (1 + 8.34254e-5 + 2.406147e-2 / (130 - square) + 1.5998e-4 / (38.9 - square))


def synthesise(
    teff: np.ndarray | float,
    logg: np.ndarray | float,
    m_h: np.ndarray | float,
    alpha_fe: np.ndarray | float,
    vbroad: np.ndarray | float = 0.0,
    line_count: int = 250,
) -> np.ndarray:
    """Compute normalised spectra as the RVS would see them, free of noise.

    Arguments:
        teff, logg, m_h, alpha_fe [S]: Effective temperature [K], surface gravity [dex, cgs], [M/H] and [alpha/Fe]
            [dex].
        vbroad [S]: Rotation and macroturbulence [km/s].
        line_count: How many of the strongest atomic lines to follow.

    Returns:
        array [S, P]: Flux over continuum, on :data:`WAVELENGTH`.
    """
    labels = np.broadcast_arrays(*(np.atleast_1d(np.asarray(x, float)) for x in (teff, logg, m_h, alpha_fe, vbroad)))
    return observe(fine_spectra(*labels[:4], line_count=line_count), labels[4])


def fine_spectra(
    teff: np.ndarray, logg: np.ndarray, m_h: np.ndarray, alpha_fe: np.ndarray, line_count: int = 250
) -> np.ndarray:
    """Compute the spectra that leave the stars, on the fine grid and without rotation: [S, W]."""
    lines, atmospheres = strongest_lines(line_count), model_atmosphere(teff, logg, m_h, alpha_fe)
    spectra = np.empty((len(teff), len(FINE)))
    for star in range(len(teff)):
        layers = atmospheres.star(star)
        opacity = paschen_opacity(layers.gas, FINE)
        opacity += line_opacity(layers.gas, lines, microturbulence(teff[star], logg[star]), FINE)
        spectra[star] = normalised_flux(layers, opacity)
    return spectra


def normalised_flux(layers: Atmosphere, opacity: np.ndarray) -> np.ndarray:
    """Return flux over continuum [W] of one star, for line opacities [D, W] in cm^-1."""
    continuum = continuous_opacity(layers.gas)[:, None]
    density = layers.gas.density[:, None]
    planck = 1.0 / (np.exp(SECOND_RADIATION / (WINDOW_ANGSTROM * 1e-8 * layers.gas.temperature)) - 1.0)
    flux = emergent_flux((opacity + continuum) / density, layers.column_mass, planck)
    return flux / emergent_flux(continuum / density, layers.column_mass, planck)


def emergent_flux(opacity: np.ndarray, column_mass: np.ndarray, planck: np.ndarray) -> np.ndarray:
    r"""Solve the equation of transfer for the flux at the surface.

    .. math:: F \propto \int_0^1 \mu \int_0^\infty B(\tau) \, e^{-\tau / \mu} \, d\tau / \mu \; d\mu

    Arguments:
        opacity [D, W]: In cm^2 / g.
        column_mass, planck [D]: Mass above each layer [g cm^-2]; source function in any unit.

    Returns:
        array [W]
    """
    depth = np.empty_like(opacity)
    depth[0] = opacity[0] * column_mass[0]
    depth[1:] = 0.5 * (opacity[1:] + opacity[:-1]) * np.diff(column_mass)[:, None]
    np.cumsum(depth, axis=0, out=depth)
    # Each slab shines with the mean source function of its two sides: gather the weight of each escape probability.
    middle = np.concatenate([planck[:1], 0.5 * (planck[1:] + planck[:-1]), planck[-1:]])
    jump = np.diff(middle)
    flux = np.zeros(opacity.shape[1])
    for cosine, weight in zip(COSINES, COSINE_WEIGHTS, strict=True):
        flux += cosine * weight * (planck[0] + jump @ np.exp(depth / -cosine))
    return flux


def observe(spectra: np.ndarray, vbroad: np.ndarray) -> np.ndarray:
    """Broaden fine spectra [S, W] by rotation [S] (km/s) and by the instrument, and read the pixels: [S, P]."""
    pixels = 10.0 * air_wavelength(WAVELENGTH)
    instrument = FWHM_TO_SIGMA / RESOLVING_POWER
    sigma = np.hypot(instrument, np.asarray(vbroad) * BROADENING_TO_SIGMA / SPEED_OF_LIGHT_KMS) / FINE_STEP
    return np.stack([np.interp(pixels, FINE, _smooth(one, width)) for one, width in zip(spectra, sigma, strict=True)])


def _smooth(spectrum: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve one spectrum [W] with a Gaussian of sigma steps; the continuum goes on past both ends."""
    reach = np.arange(-int(5 * sigma), int(5 * sigma) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2)
    return np.convolve(spectrum - 1.0, kernel / kernel.sum(), "same") + 1.0
