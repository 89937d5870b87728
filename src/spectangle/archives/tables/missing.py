"""Values that stand for missing ones: NaN, the sentinels that tables are filled with, and what no star has.

Shapes: n stars.
"""

import re

import astropy.units as u
import numpy as np

__all__ = ["error_or_nan", "is_fill", "is_missing", "plausible", "why_missing"]

HUGE = 1e15  # fill values of FITS, VOTable and HDF5 writers: 1e20, 9.97e36, 1.8e308
NEVER = -9000.0  # -9999, -9999.99 and their like are never a label
NINES = np.array(
    [99, 99.9, 99.99, 99.999, 999, 999.9, 999.99, 999.999, 9999, 9999.9, 9999.99, 99999, 999999], dtype=np.float64
)
FAR = 3.0  # interquartile ranges between a sentinel and the other values
RANGES = (  # of labels by name, wider than any star: unit, lowest, highest
    (r"teff", "K", 500.0, 250_000.0),
    (r"logg", "dex", -3.0, 10.0),
    (r"\w+_h", "dex", -8.0, 3.0),
    (r"\w+_(fe|m)", "dex", -5.0, 5.0),
)


def plausible(name: str, unit: str | None = None) -> tuple[float, float]:
    """The range that a label of this name lies in, in its unit; without bounds where the name or the unit is not
    known.
    """
    for pattern, own, low, high in RANGES:
        if re.fullmatch(pattern, name):
            if not unit or unit == own:
                return low, high
            try:
                factor = float(np.real(u.Unit(own).to(u.Unit(unit), 1.0)))
            except (ValueError, TypeError, u.UnitConversionError):
                break
            return low * factor, high * factor
    return -np.inf, np.inf


def is_missing(values: np.ndarray, name: str = "", unit: str | None = None) -> np.ndarray:
    """Whether values [n] of a label stand for missing ones.

    They are not finite, or beyond what a star can have, or one of the usual sentinels (-999, 99.99, 9999 ...) far from
    all other values.
    """
    low, high = plausible(name, unit)
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        wrong = ~np.isfinite(values) | (np.abs(values) > HUGE) | (values <= NEVER) | (values < low) | (values > high)
        return wrong | _lone_sentinels(values, wrong)


def is_fill(values: np.ndarray) -> np.ndarray:
    """Whether values [n] are what tables are filled with, in any unit: not finite, huge, -999, 99.99, -9999 ..."""
    size = np.abs(np.asarray(values, dtype=np.float64))
    with np.errstate(invalid="ignore"):
        return ~np.isfinite(size) | (size > HUGE) | (values <= NEVER) | np.isclose(size[:, None], NINES).any(axis=1)


def why_missing(value: float, name: str, unit: str | None = None) -> str:
    """Say of one value that :func:`is_missing` what is wrong with it."""
    low, high = plausible(name, unit)
    if np.isfinite(value) and not low <= value <= high and value > NEVER and abs(value) < HUGE:
        return (
            f"is {value:g}, and lies between {low:g} and {high:g} {unit or ''}".rstrip()
            + " in every star: it stands for a missing value"
        )
    return f"is {value:g}, which stands for a missing value"


def error_or_nan(values: np.ndarray) -> np.ndarray:
    """Errors [n] float32; NaN where they are negative or sentinels."""
    values = np.asarray(values, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        return np.where(is_missing(values) | (values < 0), np.float32(np.nan), values)


def _lone_sentinels(values: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Which values [n] are sentinels outside the range of all others, and far from it on the scale of their scatter."""
    near = NINES[np.searchsorted(NINES, np.abs(np.nan_to_num(values))).clip(max=len(NINES) - 1)]
    below = NINES[(np.searchsorted(NINES, np.abs(np.nan_to_num(values))) - 1).clip(min=0)]
    size = np.abs(values)
    candidate = ~wrong & (np.isclose(size, near, rtol=1e-6) | np.isclose(size, below, rtol=1e-6))
    others = values[~wrong & ~candidate]
    if not candidate.any() or not len(others):
        return np.zeros(len(values), dtype=bool)
    scatter = np.subtract(*np.quantile(others, [0.75, 0.25]))
    gap = np.maximum(others.min() - values, values - others.max())
    return candidate & (gap > FAR * scatter)
