r"""Equation of state: how many electrons and hydrogen nuclei a gas of given temperature and pressure holds.

Shapes: E elements; ``...`` any layers or stars.
"""

from dataclasses import dataclass

import numpy as np

from spectangle.synthetic.constants import ATOMIC_MASS, BOLTZMANN
from spectangle.synthetic.elements import INDEX, MASS, ionisation_ratios

__all__ = ["Gas", "solve_gas"]

BISECTIONS = 34  # of ln n_e over 27 e-folds: 2e-9


@dataclass(frozen=True)
class Gas:
    """Hold a gas in local thermodynamic equilibrium (cgs units).

    Attributes:
        temperature [...]: In K.
        electrons, hydrogen [...]: Electrons and hydrogen nuclei per cm^3.
        abundances [E, ...]: Atoms per hydrogen nucleus.
        ratios [E, ...]: Saha's :math:`n_{II} n_e / n_I` in cm^-3.
    """

    temperature: np.ndarray
    electrons: np.ndarray
    hydrogen: np.ndarray
    abundances: np.ndarray
    ratios: np.ndarray

    @property
    def neutral_hydrogen(self) -> np.ndarray:
        """Neutral hydrogen atoms per cm^3, [...]."""
        return self.hydrogen * self.electrons / (self.electrons + self.ratios[INDEX["H"]])

    @property
    def neutral_helium(self) -> np.ndarray:
        """Helium atoms per cm^3, [...]; helium stays neutral at these temperatures."""
        return self.hydrogen * self.abundances[INDEX["He"]]

    @property
    def density(self) -> np.ndarray:
        """Mass density in g cm^-3, [...]."""
        return self.hydrogen * np.tensordot(MASS, self.abundances, axes=1) * ATOMIC_MASS

    def star(self, index: int) -> "Gas":
        """Return the gas of one star: [S, D] becomes [D]."""
        return Gas(
            self.temperature[index],
            self.electrons[index],
            self.hydrogen[index],
            self.abundances[:, index],
            self.ratios[:, index],
        )


def solve_gas(temperature: np.ndarray, pressure: np.ndarray, abundance: np.ndarray) -> Gas:
    r"""Find the electron density that conserves charge, by bisection.

    .. math:: n_e = \sum_E n_E \frac{R_E}{R_E + n_e}, \qquad n_H = \frac{P / k T - n_e}{\sum_E n_E / n_H}

    with :math:`R_E` the Saha ratio of element E; every element is at most singly ionised here (Gray 2005, ch. 8).

    Arguments:
        temperature, pressure [...]: In K and dyn cm^-2.
        abundance [E, ...]: Atoms per hydrogen nucleus.

    Returns:
        Gas
    """
    particles, ratios = pressure / (BOLTZMANN * temperature), ionisation_ratios(temperature)
    nuclei = abundance.sum(0)
    weighted = abundance * ratios
    low, high = np.log(particles * 1e-12), np.log(particles * 0.6)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        electrons = np.exp(middle)
        freed = (particles - electrons) / nuclei * (weighted / (electrons + ratios)).sum(0)
        too_few = freed > electrons
        low, high = np.where(too_few, middle, low), np.where(too_few, high, middle)
    electrons = np.exp(0.5 * (low + high))
    return Gas(temperature, electrons, (particles - electrons) / nuclei, abundance, ratios)
