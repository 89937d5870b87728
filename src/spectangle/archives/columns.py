"""Columns of a table: which are there, under which names, and what to say when one is missing."""

from collections.abc import Iterable, Mapping

from spectangle.errors import SpectangleError

__all__ = ["find_column", "require_columns"]


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
