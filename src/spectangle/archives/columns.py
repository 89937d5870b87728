"""Columns of a table: which are there, under which names, and what to say when one is missing."""

from collections.abc import Iterable, Mapping

from spectangle.errors import SpectangleError

__all__ = ["find_column", "require_columns"]


def find_column(name: str, available: Iterable[str]) -> str | None:
    """The column of this name, whatever its case; None where there is none."""
    by_lower = {column.lower(): column for column in available}
    return by_lower.get(name.lower())


def require_columns(wanted: Mapping[str, str], available: Iterable[str], where: str) -> dict[str, str]:
    """Return {key: the file's spelling} for each wanted {key: column}.

    Raises:
        SpectangleError: A column is missing; the sentence lists those that are there.
    """
    available = list(available)
    found = {key: find_column(column, available) for key, column in wanted.items()}
    missing = [wanted[key] for key, column in found.items() if column is None]
    if missing:
        shown = ", ".join(available[:30]) + (", ..." if len(available) > 30 else "")
        raise SpectangleError(f"{where} has no column '{missing[0]}'; it has: {shown}. Is it the right file? Else name the column in the config.")
    return {key: column for key, column in found.items() if column is not None}
