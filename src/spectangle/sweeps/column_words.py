"""The columns of a leaderboard in words: headings that break, numbers that can be compared."""

import math
import re
from collections.abc import Sequence
from typing import Any

__all__ = ["alike", "heading", "with_spread"]

HEADING = 11  # columns of the terminal for a line of a heading


def alike(values: Sequence[Any]) -> list[str]:
    """The values of a column in words: numbers with as many significant digits each, four at most, so that they can be
    compared; whole numbers as they are.
    """
    numbers = [value for value in values if _is_number(value) and value]
    if all(isinstance(value, int) or (value.is_integer() and abs(value) < 1e15) for value in numbers):
        return [f"{value:.0f}" if _is_number(value) else _word(value) for value in values]
    digits = max(len(f"{value:.3e}".partition("e")[0].rstrip("0").strip("-").replace(".", "")) for value in numbers)
    wide = any(not 1e-4 <= abs(value) < 1e5 for value in numbers)
    return [_digits(value, digits, wide) if _is_number(value) else _word(value) for value in values]


def _digits(value: float, digits: int, wide: bool) -> str:
    """A number with some significant digits, as a power of ten in a column that is wide."""
    if not value:
        return "0"
    text = f"{value:.{digits - 1}e}"
    return text if wide else f"{value:.{max(0, digits - 1 - int(text.partition('e')[2]))}f}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def with_spread(text: str, spread: float | None) -> str:
    """A value in words with its spread, in the places that the value has."""
    if not text or spread is None:
        return text
    places = len(text.partition(".")[2])
    return f"{text} ± {f'{spread:.1e}' if 'e' in text else f'{spread:.{places}f}'}"


def heading(name: str) -> str:
    """A key or metric path over several short lines, broken after its dots, slashes and underscores."""
    lines = [""]
    for piece in re.findall(r"[^./_ ]+[./_ ]*|\W+", name):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > HEADING:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _word(value: Any) -> str:
    return "" if value is None else str(value)
