r"""What broadens an atomic line: thermal motion and microturbulence; collisions and the finite life of its levels.

Shapes: L lines, D layers; lines are a :class:`~spectangle.synthetic.line_list.LineList`.
"""

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gamma as gamma_function

from spectangle.synthetic.constants import ATOMIC_MASS, BOLTZMANN, SPEED_OF_LIGHT
from spectangle.synthetic.elements import INDEX, IONISATION_EV, MASS
from spectangle.synthetic.gas import Gas

if TYPE_CHECKING:
    from spectangle.synthetic.line_list import LineList

__all__ = ["damping", "doppler_width", "microturbulence"]

BOHR_AREA = 2.80e-17  # cm^2
TRIPLET_CROSS_SECTION, TRIPLET_EXPONENT = 291.0, 0.275  # atomic units at 10 km/s (Barklem and O'Mara 1998)
HELIUM_EFFICIENCY = 0.42  # of helium over hydrogen as a perturber
SOLAR_HELIUM = 0.0851
UNSOLD_ENHANCEMENT = 2.0


def microturbulence(teff: float, logg: float) -> float:
    """Return the small-scale turbulent velocity in km/s: larger in giants and in hot stars (0.8 to 2.5)."""
    return float(np.clip(1.2 + 0.25 * (3.5 - logg) + 1e-4 * (teff - 5500.0), 0.8, 2.5))


def doppler_width(gas: Gas, lines: "LineList", turbulence: float) -> np.ndarray:
    r"""Return :math:`\lambda / c \, \sqrt{2 k T / m + \xi^2}` in cm, [L, D]; turbulence :math:`\xi` in km/s."""
    thermal = 2.0 * BOLTZMANN * gas.temperature / (MASS[lines.element, None] * ATOMIC_MASS)
    return lines.wavelength[:, None] * 1e-8 / SPEED_OF_LIGHT * np.sqrt(thermal + (turbulence * 1e5) ** 2)


def damping(gas: Gas, lines: "LineList") -> np.ndarray:
    r"""Return the damping constant :math:`\gamma` in rad/s, [L, D]."""
    return np.where(lines.calcium_triplet[:, None], _triplet(gas), _unsold(gas, lines))


def _triplet(gas: Gas) -> np.ndarray:
    r"""Broaden the Ca II triplet by hydrogen atoms as Anstey, Barklem and O'Mara do (1998, MNRAS 300, 863), [D].

    .. math:: \gamma / n = 2 (4 / \pi)^{\alpha / 2} \Gamma(2 - \alpha / 2) \, \bar v \, \sigma_0 (\bar v /
      v_0)^{-\alpha}
    """
    half = TRIPLET_EXPONENT / 2
    inverse_mass = (1.0 / MASS[INDEX["H"]] + 1.0 / MASS[INDEX["Ca"]]) / ATOMIC_MASS
    speed = np.sqrt(8.0 * BOLTZMANN * gas.temperature / np.pi * inverse_mass)
    per_atom = 2.0 * (4.0 / np.pi) ** half * gamma_function(2.0 - half) * TRIPLET_CROSS_SECTION * BOHR_AREA
    per_atom = per_atom * speed * (speed / 1e6) ** -TRIPLET_EXPONENT
    perturbers = gas.neutral_hydrogen + HELIUM_EFFICIENCY * SOLAR_HELIUM * gas.hydrogen
    return per_atom * perturbers + 1.4e8 + 2e-6 * gas.electrons


def _unsold(gas: Gas, lines: "LineList") -> np.ndarray:
    r"""Broaden the other lines by Unsold's approximation, doubled (Gray 2005, eqs. 11.29 and 11.30), [L, D].

    .. math:: \log \gamma_6 = 20 + 0.4 \log C_6 + \log P_H - 0.7 \log T

    Natural broadening is the classical :math:`0.22 / \lambda^2`, electrons add a mean quadratic Stark width.
    """
    limit = IONISATION_EV[lines.ion, lines.element] - lines.excitation
    upper = np.maximum(limit - 12398.4 / lines.wavelength, 0.3)
    c6 = 0.3e-30 * np.abs(upper**-2 - np.maximum(limit, 0.5) ** -2) * np.where(lines.ion == 1, 4.0, 1.0)
    pressure = gas.neutral_hydrogen * BOLTZMANN * gas.temperature
    van_der_waals = 1e20 * c6[:, None] ** 0.4 * pressure * gas.temperature**-0.7
    return UNSOLD_ENHANCEMENT * van_der_waals + 2.2e15 / lines.wavelength[:, None] ** 2 + 5e-7 * gas.electrons
