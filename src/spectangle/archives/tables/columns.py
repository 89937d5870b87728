"""Columns of a table: which are there, under which names, and what to say when one is missing or holds no numbers."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from spectangle.errors import SpectangleError

__all__ = ["NoNumber", "find_column", "numbers", "require_columns"]


class NoNumber(SpectangleError):
    """A cell of a column of numbers holds something else; its row is counted from 0."""

    def __init__(self, where: str, column: str, cell: Any, row: int):
        self.parts, self.row = (where, column, cell), row
        text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell
        super().__init__(f"{where}: column '{column}' holds text ('{text}' in row {row + 1}); numbers were expected.")

    def in_row(self, row: int) -> "NoNumber":
        """The same of a table that this row, counted from 0, was taken from."""
        return NoNumber(*self.parts, row)


def find_column(name: str, available: Iterable[str]) -> str | None:
    """The column of this name, whatever its case; None where there is none."""
    by_lower = {column.lower(): column for column in available}
    return by_lower.get(name.lower())


def require_columns(wanted: Mapping[str, str], available: Iterable[str], where: str, mend: str = "") -> dict[str, str]:
    """Return {key: the file's spelling} for each wanted {key: column}.

    Arguments:
        wanted: {key: column}.
        available: Columns of the file.
        where: The file, for the sentence.
        mend: How the user names another column, with {} for the key: ``archive.columns.{}=...``.

    Raises:
        SpectangleError: A column is missing; the sentence lists those that are there.
    """
    available = list(available)
    found = {key: find_column(column, available) for key, column in wanted.items()}
    missing = [key for key, column in found.items() if column is None]
    if missing:
        shown = ", ".join(available[:30]) + (", ..." if len(available) > 30 else "")
        name = f" Else name the column: {mend.format(missing[0])}" if mend else ""
        raise SpectangleError(
            f"{where} has no column '{wanted[missing[0]]}'; it has: {shown}. Is it the right file?{name}"
        )
    return {key: column for key, column in found.items() if column is not None}


def numbers(column: Any, where: str) -> np.ndarray:
    """Values [n] float64 of a column of numbers, or of one row with an array; NaN where masked.

    Raises:
        NoNumber: There is something else in it; the first row of it is named.
    """
    try:
        return np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan).reshape(-1)
    except (TypeError, ValueError):
        cells = enumerate(np.ma.asarray(column).ravel().tolist())
        row, cell = next(((row, cell) for row, cell in cells if not _is_number(cell)), (0, column[0]))
        raise NoNumber(where, column.name, cell, row) from None


def _is_number(cell: Any) -> bool:
    try:
        return cell is None or float(cell) is not None
    except (TypeError, ValueError):
        return False
