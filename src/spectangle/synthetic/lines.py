r"""Atomic lines: the line list, line strengths, and Voigt profiles with their broadening.

Shapes: L lines, D layers, W wavelengths. Wavelengths are in air, in Angstrom, as in the line list.
"""

from functools import lru_cache

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import wofz

from spectangle.synthetic.atmosphere import LOG_DEPTH, model_atmosphere
from spectangle.synthetic.broadening import damping, doppler_width
from spectangle.synthetic.constants import (
    KELVIN_PER_EV,
    LINE_CROSS_SECTION,
    SPEED_OF_LIGHT,
    SPEED_OF_LIGHT_KMS,
    SQRT_PI,
)
from spectangle.synthetic.continuous_opacity import continuous_opacity, stimulated_emission
from spectangle.synthetic.elements import INDEX, IONISATION_EV, partition_function, read_table, saha_factor
from spectangle.synthetic.gas import Gas
from spectangle.synthetic.line_list import LineList

__all__ = ["line_opacity", "strongest_lines"]

WEAKEST = 0.004  # lines that nowhere reach this fraction of the continuous opacity are left out
CORE = 6.0  # Doppler widths; beyond, the wing series is good to 3e-4
FAINTEST_WING = 1e-4  # of the continuous opacity
CORE_WINDOW, TRIPLET_WING = 0.6, 70.0  # Angstrom on either side
REFERENCE_STARS = np.array(
    [[5777, 4.44, 0.0, 0.0], [4200, 1.5, 0.2, 0.2], [6500, 4.2, 0.2, 0.0], [4800, 2.5, -0.5, 0.3]]
)
REFERENCE_LOG_DEPTH, REFERENCE_TURBULENCE = -0.7, 2.0


def read_lines() -> LineList:
    """Read every line of the table."""
    rows = read_table("atomic_lines.csv")
    return LineList(
        np.array([float(row["wavelength_air_angstrom"]) for row in rows]),
        np.array([INDEX[row["element"]] for row in rows]),
        np.array([int(row["ion"]) for row in rows]),
        np.array([float(row["excitation_ev"]) for row in rows]),
        np.array([float(row["log_gf"]) for row in rows]),
    )


@lru_cache
def strongest_lines(count: int = 250) -> LineList:
    """Return the lines that are strongest in any of four reference stars, in order of wavelength."""
    lines = read_lines()
    layer = int(np.argmin(np.abs(LOG_DEPTH - REFERENCE_LOG_DEPTH)))
    stars, best = model_atmosphere(*REFERENCE_STARS.T), np.zeros(len(lines))
    width = lines.wavelength[:, None] * 1e-8 * REFERENCE_TURBULENCE / SPEED_OF_LIGHT_KMS
    for star in range(len(REFERENCE_STARS)):
        best = np.maximum(best, relative_strength(stars.gas.star(star), lines, width)[:, layer])
    return lines.take(np.sort(np.argsort(-best)[:count]))


def stage_density(gas: Gas, lines: LineList) -> np.ndarray:
    r"""Return the density of each line's atom in its ionisation stage, in cm^-3 [L, D].

    Three stages count: :math:`n_I : n_{II} : n_{III} = 1 : r_1 : r_1 r_2`.
    """
    first = gas.ratios[lines.element] / gas.electrons
    second = saha_factor(IONISATION_EV[1, lines.element], gas.temperature) / gas.electrons
    share = np.where(lines.ion[:, None] == 1, first, 1.0) / (1.0 + first * (1.0 + second))
    return gas.hydrogen * gas.abundances[lines.element] * share


def integrated_opacity(gas: Gas, lines: LineList) -> np.ndarray:
    r"""Return :math:`\frac{\pi e^2}{m_e c} gf \, \frac{n}{U} e^{-\chi / k T} (1 - e^{-h \nu / k T})`, cm^-1 Hz [L,
    D].
    """
    partition = partition_function(lines.element, lines.ion, gas.temperature)
    boltzmann = np.exp(-lines.excitation[:, None] * KELVIN_PER_EV / gas.temperature)
    strength = LINE_CROSS_SECTION * 10.0 ** lines.log_gf[:, None] * stimulated_emission(gas.temperature)
    return strength * stage_density(gas, lines) / partition * boltzmann


def relative_strength(gas: Gas, lines: LineList, width: np.ndarray) -> np.ndarray:
    """Return the opacity at line centre over the continuous opacity [L, D], for Doppler widths [L, D] in cm."""
    per_hertz = (lines.wavelength[:, None] * 1e-8) ** 2 / SPEED_OF_LIGHT / width / SQRT_PI
    return integrated_opacity(gas, lines) * per_hertz / continuous_opacity(gas)


def line_opacity(gas: Gas, lines: LineList, microturbulence: float, wavelength: np.ndarray) -> np.ndarray:
    """Add up the opacity of the lines that matter in one star.

    Arguments:
        gas: Layers of one star, [D].
        lines: Candidates, [L].
        microturbulence: In km/s.
        wavelength [W]: Air, Angstrom, ascending.

    Returns:
        array [D, W]: In cm^-1.
    """
    width = doppler_width(gas, lines, microturbulence)
    strength = relative_strength(gas, lines, width)
    kept = (strength.max(1) >= WEAKEST) | lines.calcium_triplet
    lines, width, strength = lines.take(kept), width[kept], strength[kept]
    centre = strength * continuous_opacity(gas)
    ratio = damping(gas, lines) * (lines.wavelength[:, None] * 1e-8) ** 2 / (4 * np.pi * SPEED_OF_LIGHT * width)
    half = _half_window(lines, width, strength, ratio)
    return _add_profiles(lines.wavelength, half, width * 1e8, ratio, centre, wavelength)


def _half_window(lines: LineList, width: np.ndarray, strength: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Return how far each line is followed, in Angstrom [L]: until its wing falls below the continuum everywhere."""
    wing = 1e8 * (width * np.sqrt(strength * ratio / (SQRT_PI * FAINTEST_WING))).max(1)
    return np.where(lines.calcium_triplet, TRIPLET_WING, np.maximum(CORE_WINDOW, wing))


def _add_profiles(
    centres: np.ndarray,
    half: np.ndarray,
    width: np.ndarray,
    ratio: np.ndarray,
    centre_opacity: np.ndarray,
    wavelength: np.ndarray,
) -> np.ndarray:
    """Sum opacity times Voigt profile over the lines, each inside its own window: [D, W]."""
    starts, stops = np.searchsorted(wavelength, [centres - half, centres + half])
    counts = stops - starts
    line = np.repeat(np.arange(len(centres)), counts)
    pixel = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - starts, counts)
    offset = (wavelength[pixel] - centres[line])[:, None] / width[line]
    profile = centre_opacity[line] * voigt(ratio[line], offset)
    samples = (np.ones(len(pixel)), (pixel, np.arange(len(pixel))))
    return (csr_matrix(samples, shape=(len(wavelength), len(pixel))) @ profile).T


def voigt(ratio: np.ndarray, offset: np.ndarray) -> np.ndarray:
    r"""Return the Voigt function :math:`H(a, v) = \mathrm{Re} \, w(v + i a)`, by its asymptotic series in the wings.

    .. math:: H \approx \frac{a}{\sqrt\pi r} (1 + \frac{3}{2 r} + \frac{15}{4 r^2}), \quad r = v^2 + a^2

    Arguments:
        ratio [...]: Damping a: Lorentz over Doppler width.
        offset [...]: Distance v from the centre in Doppler widths.
    """
    core = np.abs(offset) <= CORE
    inverse = 1.0 / np.maximum(offset * offset + ratio * ratio, 1.0)
    profile = ratio * inverse * (1.0 + inverse * (1.5 + 3.75 * inverse)) / SQRT_PI
    profile[core] = wofz(offset[core] + 1j * ratio[core]).real
    return profile
