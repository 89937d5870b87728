"""What scores normal stars keep within, as a function of their S/N.

Shapes: n stars, K knots.
"""

import numpy as np
from scipy.stats import norm

__all__ = ["NORMAL", "limit_at", "limit_by_level", "limit_knots", "normal_quantile"]

NORMAL = 0.99  # of the normal stars lie within the limits
KNOTS = 24
WIDTH, FEWEST = 0.3, 200  # of a bin, in log S/N and in stars; an eighth of them in a small survey


def limit_knots(level: np.ndarray) -> np.ndarray:
    """Places [K] in log S/N where limits of stars of S/N `level` [n] are kept; the last is far beyond them."""
    low, high = np.log(np.quantile(level, [0.001, 0.999]))
    return np.append(np.linspace(low, max(high, low + 1e-3), KNOTS - 1), high + np.log(10))


def limit_by_level(level: np.ndarray, score: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Log of the score that 99 % of the normal stars [n] keep within, at each of the knots [K].

    Quantiles in bins of S/N, joined by straight lines; beyond the best stars the last lines go on, but do not fall.
    """
    order = np.argsort(level)
    place, value = np.log(level[order]), np.log(np.maximum(score[order], 1e-12))
    middles, limits, stop, fewest = [], [], len(place), min(FEWEST, max(len(place) // 8, 1))
    while stop:
        start = max(0, min(stop - fewest, int(np.searchsorted(place, place[stop - 1] - WIDTH))))
        start = 0 if start < fewest else start
        middles.append(np.median(place[start:stop]))
        limits.append(normal_quantile(value[start:stop]))
        stop = start
    middles, limits = np.array(middles[::-1]), np.array(limits[::-1])
    back = min(3, len(middles))
    rise = (limits[-1] - limits[-back]) / (middles[-1] - middles[-back]) if back > 1 else 0.0
    return np.interp(knots, middles, limits) + max(rise, 0.0) * np.maximum(knots - middles[-1], 0)


def normal_quantile(values: np.ndarray) -> float:
    """What 99 % of normal stars keep below, from some [n]; fewer than 100 need not reach so far, so that it is not less
    than what a Gaussian has.
    """
    found = float(np.quantile(values, NORMAL))
    if len(values) >= 100:
        return found
    return max(found, float(norm(values.mean(), values.std() + 1e-9).ppf(NORMAL)))


def limit_at(level: np.ndarray, knots: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The limits [n] at S/N `level` [n]."""
    return np.exp(np.interp(np.log(level), knots, limits)).astype(np.float32)
