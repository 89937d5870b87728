r"""Model atmospheres: a scaled solar T(tau) in hydrostatic equilibrium.

Shapes: S stars, D = 28 layers, E elements.
"""

from dataclasses import dataclass

import numpy as np

from spectangle.synthetic.continuous_opacity import continuous_opacity
from spectangle.synthetic.elements import abundances
from spectangle.synthetic.gas import Gas, solve_gas

__all__ = ["DEPTH", "Atmosphere", "model_atmosphere", "temperature_of_depth"]

LOG_DEPTH = np.linspace(-5.0, 1.5, 28)
DEPTH = 10.0**LOG_DEPTH  # continuum optical depth of the layers
FIRST_LAYER_STEPS = 8


@dataclass(frozen=True)
class Atmosphere:
    """Hold the layers of one or many stars.

    Attributes:
        gas: Temperature, electrons and hydrogen of each layer, arrays [S, D] (abundances [E, S, 1]).
        column_mass [S, D]: Mass above each layer in g cm^-2.
    """

    gas: Gas
    column_mass: np.ndarray

    def star(self, index: int) -> "Atmosphere":
        """Return the layers of one star: arrays [D]."""
        return Atmosphere(self.gas.star(index), self.column_mass[index])


def temperature_of_depth(teff: np.ndarray, depth: np.ndarray) -> np.ndarray:
    r"""Return the solar temperature law of Krishna Swamy (1966, ApJ 145, 174), scaled to another star.

    .. math:: T^4 = \tfrac{3}{4} T_{eff}^4 (\tau + 1.39 - 0.815 e^{-2.54 \tau} - 0.025 e^{-30 \tau})
    """
    hopf = 1.39 - 0.815 * np.exp(-2.54 * depth) - 0.025 * np.exp(-30.0 * depth)
    return teff * (0.75 * (depth + hopf)) ** 0.25


def model_atmosphere(teff: np.ndarray, logg: np.ndarray, m_h: np.ndarray, alpha_fe: np.ndarray) -> Atmosphere:
    r"""Integrate hydrostatic equilibrium, :math:`dP / d\tau = g / \kappa`, down the layers of many stars at once.

    Arguments:
        teff, logg, m_h, alpha_fe [S]: Labels in K, dex (cgs), dex, dex.

    Returns:
        Atmosphere
    """
    gravity, abundance = 10.0**logg, abundances(m_h, alpha_fe)
    temperature = temperature_of_depth(teff[:, None], DEPTH)
    pressure = np.empty_like(temperature)
    pressure[:, 0] = _top_pressure(temperature[:, 0], gravity, abundance)
    for layer in range(1, len(DEPTH)):
        pressure[:, layer] = _next_pressure(layer, temperature, pressure[:, layer - 1], gravity, abundance)
    gas = solve_gas(temperature, pressure, abundance[:, :, None])
    return Atmosphere(gas, pressure / gravity[:, None])


def _opacity_per_gram(temperature: np.ndarray, pressure: np.ndarray, abundance: np.ndarray) -> np.ndarray:
    gas = solve_gas(temperature, pressure, abundance)
    return continuous_opacity(gas) / gas.density


def _top_pressure(temperature: np.ndarray, gravity: np.ndarray, abundance: np.ndarray) -> np.ndarray:
    r"""Solve :math:`P = g \tau / \kappa(P)` in the first layer by iteration."""
    pressure = 0.5 * np.sqrt(gravity)
    for _ in range(FIRST_LAYER_STEPS):
        pressure = gravity * DEPTH[0] / _opacity_per_gram(temperature, pressure, abundance)
    return pressure


def _next_pressure(
    layer: int, temperature: np.ndarray, pressure: np.ndarray, gravity: np.ndarray, abundance: np.ndarray
) -> np.ndarray:
    """Step ln P along ln tau by Heun's rule."""

    def slope(place: int, at: np.ndarray) -> np.ndarray:
        return gravity * DEPTH[place] / (_opacity_per_gram(temperature[:, place], at, abundance) * at)

    step = np.log(DEPTH[layer] / DEPTH[layer - 1])
    before = slope(layer - 1, pressure)
    after = slope(layer, pressure * np.exp(step * before))
    return pressure * np.exp(0.5 * step * (before + after))
