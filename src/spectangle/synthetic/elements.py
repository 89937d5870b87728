r"""Chemical elements: solar abundances, masses, ionisation energies and partition functions.

Arrays over elements follow the order of ``tables/elements.csv``; ``INDEX["Ca"]`` gives the place of calcium.
"""

import csv
from importlib.resources import files

import numpy as np

from spectangle.synthetic.constants import KELVIN_PER_EV, SAHA

__all__ = [
    "INDEX",
    "IONISATION_EV",
    "MASS",
    "abundances",
    "ionisation_ratios",
    "partition_function",
    "read_table",
    "saha_factor",
]


def read_table(name: str) -> list[dict[str, str]]:
    """Read a comma-separated table of the package, without its comment lines."""
    text = (files("spectangle.synthetic") / "tables" / name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def _column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def _partition_coefficients() -> np.ndarray:
    """Return the coefficients as [E, 2, 6]: element, neutral or ionised, power of ln T."""
    found = {
        (row["element"], int(row["ion"])): [float(row[f"a{power}"]) for power in range(6)]
        for row in read_table("partition_functions.csv")
    }
    return np.array([[found[name, ion] for ion in (0, 1)] for name in INDEX])


_ROWS = read_table("elements.csv")
INDEX: dict[str, int] = {row["element"]: place for place, row in enumerate(_ROWS)}
MASS = _column(_ROWS, "mass")  # [E], atomic mass units
IONISATION_EV = np.stack([_column(_ROWS, "ionisation_ev_1"), _column(_ROWS, "ionisation_ev_2")])  # [2, E]
_SOLAR = _column(_ROWS, "log_abundance") - 12.0
_METAL, _ALPHA = _column(_ROWS, "metal"), _column(_ROWS, "alpha")
_PARTITION = _partition_coefficients()


def abundances(m_h: np.ndarray, alpha_fe: np.ndarray) -> np.ndarray:
    r"""Return the number of atoms per hydrogen nucleus, :math:`n_E / n_H`.

    .. math:: \log n_E / n_H = A_E - 12 + [M/H] \, (metals) + [\alpha/Fe] \, (O, Mg, Si, S, Ca, Ti)

    Arguments:
        m_h, alpha_fe [...]: Labels in dex, of one shape.

    Returns:
        array [E, ...]
    """
    m_h, alpha_fe = np.asarray(m_h, float), np.asarray(alpha_fe, float)
    column = (-1,) + (1,) * m_h.ndim
    return 10.0 ** (_SOLAR.reshape(column) + _METAL.reshape(column) * m_h + _ALPHA.reshape(column) * alpha_fe)


def partition_function(element: int | np.ndarray, ion: int | np.ndarray, temperature: np.ndarray) -> np.ndarray:
    r"""Return :math:`U(T) = \exp \sum_k a_k (\ln T)^k` (Irwin 1981, ApJS 45, 621), held constant past 1500-16000 K.

    Arguments:
        element, ion [L]: Place of the element, and 0 (neutral) or 1 (singly ionised).
        temperature [...]: In K.

    Returns:
        array [...] or [L, ...]
    """
    log_t = np.log(np.clip(temperature, 1500.0, 16000.0))
    coefficients = _PARTITION[element, ion]  # [6] or [L, 6]
    shape = coefficients.shape[:-1] + (1,) * log_t.ndim
    total = np.zeros(np.broadcast_shapes(shape, log_t.shape))
    for power in range(5, -1, -1):
        total = total * log_t + coefficients[..., power].reshape(shape)
    return np.exp(total)


def ionisation_ratios(temperature: np.ndarray) -> np.ndarray:
    r"""Return :math:`n_{II} n_e / n_I` of every element, in cm^-3 (Saha's equation).

    .. math:: n_{II} n_e / n_I = 2 (2 \pi m_e k T / h^2)^{3/2} \, U_{II} / U_I \, e^{-\chi / k T}

    Arguments:
        temperature [...]: In K.

    Returns:
        array [E, ...]
    """
    places = np.arange(len(INDEX))
    ratio = partition_function(places, 1, temperature) / partition_function(places, 0, temperature)
    return ratio * saha_factor(IONISATION_EV[0], temperature)


def saha_factor(energy_ev: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """Return Saha's factor without partition functions, in cm^-3; energies [L], temperatures [...] give [L, ...]."""
    energy = np.asarray(energy_ev, float).reshape((-1,) + (1,) * np.ndim(temperature))
    return 2.0 * SAHA * temperature**1.5 * np.exp(-energy * KELVIN_PER_EV / temperature)
