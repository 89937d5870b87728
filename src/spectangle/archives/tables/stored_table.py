"""A table of a file, of which some rows at a time are read: what a file holds may be more than memory does."""

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from spectangle.errors import SpectangleError

__all__ = ["StoredTable", "in_memory", "unreadable_refused"]


@dataclass(frozen=True)
class StoredTable:
    """A table whose rows are still to be read, from a file that stays open.

    Arguments:
        where, form: The file and its form, for sentences.
        names: Its columns.
        wide: Those that hold several values in a row: arrays, lists, or text, which may be a list.
        n_rows: How many rows it has.
        read: Gives the astropy tables of at most so many rows that it consists of, in their order.
    """

    where: str
    form: str
    names: Sequence[str]
    wide: Collection[str]
    n_rows: int
    read: Callable[[int], Iterator[Any]]

    def blocks(self, at_once: int) -> Iterator[tuple[int, Any]]:
        """Yield tables of at most so many rows, each with the number of its first row, from 1.

        Raises:
            SpectangleError: The rows cannot be read.
        """
        first, tables = 1, self.read(at_once)
        while True:
            with unreadable_refused(self.where, self.form):
                table = next(tables, None)
            if table is None:
                return
            yield first, table
            first += len(table)

    def whole(self) -> Any:
        """All rows as an astropy table.

        Raises:
            SpectangleError: They cannot be read.
        """
        with unreadable_refused(self.where, self.form):
            return next(self.read(max(self.n_rows, 1)))


def in_memory(table: Any, where: str, form: str) -> StoredTable:
    """A table that was read whole, since its form allows nothing else."""
    wide = [name for name in table.colnames if table[name].ndim > 1 or table[name].dtype.kind in "OSU"]

    def read(at_once: int) -> Iterator[Any]:
        if at_once >= len(table):
            yield table
        else:
            yield from (table[start : start + at_once] for start in range(0, len(table), at_once))

    return StoredTable(where, form, table.colnames, wide, len(table), read)


@contextmanager
def unreadable_refused(where: str, form: str) -> Iterator[None]:
    """Turn what astropy and Arrow raise, which is of many kinds, into a sentence; they warn of nothing meanwhile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SpectangleError:
        raise
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        said = "its lines do not have the same columns" if "guess table format" in said else said
        raise SpectangleError(
            f"{where} cannot be read as {form} ({said}); download the file again, or write it as ECSV, CSV, "
            "VOTable or FITS."
        ) from None
