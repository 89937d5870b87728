r"""Continuous opacity of cool stars at 858 nm: H-, hydrogen, electrons.

Every term is an absorption coefficient per volume [cm^-1] for a :class:`~spectangle.synthetic.gas.Gas`.
"""

import numpy as np

from spectangle.synthetic.constants import (
    BOLTZMANN,
    KELVIN_PER_EV,
    SECOND_RADIATION,
    SPEED_OF_LIGHT,
    THOMSON,
    WINDOW_ANGSTROM,
)
from spectangle.synthetic.gas import Gas

__all__ = ["continuous_opacity", "stimulated_emission"]

MICRON = WINDOW_ANGSTROM * 1e-4
FREQUENCY = SPEED_OF_LIGHT / (WINDOW_ANGSTROM * 1e-8)
DETACHMENT_MICRON = 1.6419  # photons longer than this do not detach the electron of H-
# John 1988, A&A 193, 189, table 2 (bound-free) and table 3a (free-free, lambda > 0.3645 micron).
BOUND_FREE = (152.519, 49.534, -118.858, 92.536, -34.194, 4.982)
FREE_FREE = np.array(
    [
        [0.0, 2483.346, -3449.889, 2200.040, -696.271, 88.283],
        [0.0, 285.827, -1158.382, 2427.719, -1841.400, 444.517],
        [0.0, -2054.291, 8746.523, -13651.105, 8624.970, -1863.864],
        [0.0, 2827.776, -11485.632, 16755.524, -10051.530, 2095.288],
        [0.0, -1341.537, 5303.609, -7510.494, 4400.067, -901.788],
        [0.0, 208.952, -812.939, 1132.738, -655.020, 132.985],
    ]
)  # [power of lambda, power of theta]


def stimulated_emission(temperature: np.ndarray) -> np.ndarray:
    r"""Return the correction :math:`1 - e^{-h \nu / k T}` at the middle of the window."""
    return 1.0 - np.exp(-SECOND_RADIATION / (WINDOW_ANGSTROM * 1e-8 * temperature))


def continuous_opacity(gas: Gas) -> np.ndarray:
    """Add up H-, the Paschen and free-free continua of hydrogen, and scattering, in cm^-1 [...]."""
    neutral, stimulated = gas.neutral_hydrogen, stimulated_emission(gas.temperature)
    negative_ion = (_bound_free(gas.temperature, stimulated) + _free_free(gas.temperature)) * (
        gas.electrons * BOLTZMANN * gas.temperature * neutral
    )
    rayleigh = 5.8e-13 / WINDOW_ANGSTROM**4 * neutral  # Dalgarno 1962, leading term
    return negative_ion + _hydrogen(gas, neutral, stimulated) + THOMSON * gas.electrons + rayleigh


def _bound_free(temperature: np.ndarray, stimulated: np.ndarray) -> np.ndarray:
    """Return the bound-free absorption of H- per H atom and electron pressure, cm^4 / dyn (John 1988, eqs. 3-5)."""
    x = 1.0 / MICRON - 1.0 / DETACHMENT_MICRON
    cross_section = 1e-18 * MICRON**3 * x**1.5 * sum(c * x ** (n / 2) for n, c in enumerate(BOUND_FREE))
    detached = np.exp(SECOND_RADIATION * 1e4 / (DETACHMENT_MICRON * temperature))
    return 0.75 * temperature**-2.5 * detached * stimulated * cross_section


def _free_free(temperature: np.ndarray) -> np.ndarray:
    """Return the free-free absorption of H- per H atom and electron pressure, cm^4 / dyn (John 1988, eq. 6)."""
    theta = 5040.0 / temperature
    of_theta = FREE_FREE.T @ np.array([MICRON**2, 1.0, MICRON**-1, MICRON**-2, MICRON**-3, MICRON**-4])
    return 1e-29 * np.sum([theta ** ((n + 2) / 2) * c for n, c in enumerate(of_theta)], axis=0)


def _hydrogen(gas: Gas, neutral: np.ndarray, stimulated: np.ndarray) -> np.ndarray:
    """Return Kramers' bound-free (levels 4 to 8: level 3 ends at 820 nm) and free-free absorption, cm^-1."""
    bound = sum(
        2.815e29 / n**3 / FREQUENCY**3 * np.exp(-13.598 * (1 - 1 / n**2) * KELVIN_PER_EV / gas.temperature)
        for n in range(4, 9)
    )
    free = 3.69e8 * gas.electrons * (gas.hydrogen - neutral) / np.sqrt(gas.temperature) / FREQUENCY**3
    return (bound * neutral + free) * stimulated
