"""Labels in the unit that a survey keeps them in, whatever unit their column has: kK to K, m/s2 to dex of cm/s2.

Shapes: n stars.
"""

import re
from typing import Any

import astropy.units as u
import numpy as np

from spectangle.errors import SpectangleError

__all__ = ["in_unit"]

LOGARITHMIC = {
    "dex",
    "log",
    "logg",
    "none",
    "-",
    "--",
    "---",
    "[-]",
    "dimensionless",
    "unitless",
    "[cm/s2]",
    "dex(cm/s2)",
}  # without blanks
GRAVITY = u.cm / u.s**2
SPELLINGS = {"degk": "K", "kelvins": "K", "kelvin": "K"}


def in_unit(values: np.ndarray, stated: Any, wanted: str, where: str, error: bool = False) -> np.ndarray:
    """Convert values [n].

    Arguments:
        values: Labels, or their errors.
        stated: Unit of the column; None or empty: they are in the wanted one.
        wanted: Unit of the survey; empty: it keeps the column's.
        where: File and column, for the sentence.
        error: Whether the values are errors, which have no zero point.

    Raises:
        SpectangleError: The unit is unknown, or of something else.
    """
    text = str(stated or "").strip().strip("'\"")
    bare = re.sub(r"\s", "", text.lower())
    if not text or not wanted or text == wanted:
        return values
    try:
        if wanted == "dex":
            return _in_dex(values, text, bare, error)
        unit: Any = u.Unit(SPELLINGS.get(bare, text))
        zero: Any = unit.to(u.Unit(wanted), 0.0, u.temperature()) if error else 0.0
        return np.asarray(unit.to(u.Unit(wanted), values, u.temperature())) - zero
    except (ValueError, TypeError, u.UnitConversionError):
        name = where.rpartition(" ")[2]
        raise SpectangleError(
            f"{where} has the unit '{text}', and {wanted} was expected; convert the column, or state in which "
            "unit the survey keeps it: "
            f"units='{{{name}: {text}}}'."
        ) from None


def _in_dex(values: np.ndarray, text: str, bare: str, error: bool) -> np.ndarray:
    """Decimal logarithms of cm/s2, or of anything without a unit."""
    if bare in LOGARITHMIC or re.match(r"log(10)?\(?(cm|cgs|\[)", bare):
        return values
    unit: Any = u.Unit(text)
    if isinstance(unit, u.LogUnit):
        return (
            values
            if error or unit.physical_unit == u.dimensionless_unscaled
            else (values * unit).to_value(u.dex(GRAVITY))
        )
    if unit.is_equivalent(u.dimensionless_unscaled):
        return np.asarray(unit.to(u.dimensionless_unscaled, values))
    factor = unit.to(GRAVITY)
    if error:
        raise ValueError("an error of g is none of log g")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(values * factor)
