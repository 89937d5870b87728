"""Random numbers that belong to a star: hashed from its source_id, the same in every process and for every subset of a
survey.

Shapes: N stars.
"""

import numpy as np
from scipy.special import ndtri

__all__ = ["star_normal", "star_uniform"]

GOLDEN, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def star_uniform(source_id: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """One number between 0 and 1 for each star [N], from (source_id, seed, stream) alone.

    SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195) of the id's 64 bits, salted with seed and stream.
    """
    state = np.asarray(source_id, np.int64).view(np.uint64).copy()
    for word in (seed, stream):
        state = _mixed(state + GOLDEN * (np.full_like(state, word % 2**63) + np.uint64(1)))
    return ((state >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53


def star_normal(source_id: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers [N, n] float32, the same for a star whenever it is asked for."""
    return np.stack([ndtri(star_uniform(source_id, seed, 1000 + i)) for i in range(n)], axis=1).astype(np.float32)


def _mixed(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * FIRST
    state = (state ^ (state >> np.uint64(27))) * SECOND
    return state ^ (state >> np.uint64(31))
