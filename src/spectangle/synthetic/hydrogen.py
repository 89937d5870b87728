r"""The Paschen lines of hydrogen, P11 to P18, broadened by the electric field of ions and electrons.

Shapes: D layers, W wavelengths (air, Angstrom).
"""

import numpy as np

from spectangle.synthetic.constants import KELVIN_PER_EV, LINE_CROSS_SECTION, RYDBERG, SPEED_OF_LIGHT
from spectangle.synthetic.continuous_opacity import stimulated_emission
from spectangle.synthetic.gas import Gas

__all__ = ["paschen_opacity"]

LOWER, UPPER = 3, range(11, 19)
LOWER_EV, LOWER_WEIGHT, GROUND_WEIGHT = 12.0875, 9.0, 2.0
AIR = 1.000274  # refractive index
MINIMUM_WIDTH = 0.25  # Angstrom: thermal and turbulent motion


def paschen_opacity(gas: Gas, wavelength: np.ndarray) -> np.ndarray:
    """Add up the Paschen lines, in cm^-1 [D, W]."""
    occupied = gas.neutral_hydrogen * LOWER_WEIGHT / GROUND_WEIGHT * np.exp(-LOWER_EV * KELVIN_PER_EV / gas.temperature)
    strength = LINE_CROSS_SECTION * occupied * stimulated_emission(gas.temperature)
    total = np.zeros((len(gas.temperature), len(wavelength)))
    for upper in UPPER:
        centre = _centre(upper)
        per_angstrom = (centre * 1e-8) ** 2 / SPEED_OF_LIGHT * 1e8
        scale = strength * _oscillator_strength(upper) * per_angstrom
        total += scale[:, None] * _stark_profile(gas.electrons, wavelength - centre, upper)
    return total


def _centre(upper: int) -> float:
    """Return the wavelength in air by Rydberg's formula, in Angstrom."""
    return 1e8 / (RYDBERG * (1 / LOWER**2 - 1 / upper**2)) / AIR


def _oscillator_strength(upper: int) -> float:
    """Return Kramers' oscillator strength with a Gaunt factor of 0.9."""
    return 5.3 / upper**3 * (upper**2 / (upper**2 - LOWER**2)) ** 3


def _stark_profile(electrons: np.ndarray, offset: np.ndarray, upper: int) -> np.ndarray:
    r"""Return a Holtsmark-like profile of unit area, per Angstrom [D, W].

    .. math:: S(\beta) = \frac{0.75}{3.13 + \beta^{5/2}}, \quad \beta = \Delta\lambda / (F_0 K + 0.25), \quad
              F_0 = 1.25 \cdot 10^{-9} n_e^{2/3}, \quad K = 5.5 \cdot 10^{-5} \frac{n^4 m^4}{m^2 - n^2}

    Stark constant K: Underhill and Waddell 1959, NBS Circular 603.
    """
    field = 1.25e-9 * electrons ** (2 / 3)
    constant = 5.5e-5 * LOWER**4 * upper**4 / (upper**2 - LOWER**2)
    width = (field * constant + MINIMUM_WIDTH)[:, None]
    beta = np.abs(offset) / width
    return 0.75 / width / (3.13 + beta * beta * np.sqrt(beta))
