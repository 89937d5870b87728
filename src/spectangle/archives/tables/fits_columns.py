"""Some columns of a FITS table of many gigabytes, in a few megabytes: row blocks are read and only those columns kept.

A memory map would do as well, but its pages count as memory of the process on a cluster; blocks never do. Columns that
need scaling (TSCAL, TZERO) or live in a compressed file go through astropy.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from spectangle.archives.tables.columns import require_columns
from spectangle.errors import SpectangleError

__all__ = ["fits_column_names", "read_fits_columns"]

BLOCK_BYTES = 4 << 20


def fits_column_names(path: Path) -> list[str]:
    """The columns of all tables with rows in a FITS file.

    Raises:
        SpectangleError: There is no such file, or no such table.
    """
    if not Path(path).is_file():
        raise SpectangleError(f"There is no file {path}; check the path of the catalogue.")
    try:
        with _opened(path) as hdus:
            return [name for hdu in _tables(hdus, path) for name in hdu.columns.names]
    except (OSError, TypeError, ValueError) as error:
        raise SpectangleError(
            f"{path} cannot be read as FITS ({error}): it is truncated or of another format. Download it again."
        ) from None


def read_fits_columns(path: Path, wanted: Mapping[str, str], mend: str = "") -> dict[str, np.ndarray]:
    """Read columns of the first table with rows that has them all.

    Arguments:
        path: FITS file.
        wanted: {key: column}; the columns must hold one value a row.
        mend: See :func:`columns.require_columns`.

    Returns:
        {key: values [n]} in native byte order.

    Raises:
        SpectangleError: No such file, not FITS, truncated, a column missing or of several values a row.
    """
    if not Path(path).is_file():
        raise SpectangleError(f"There is no file {path}; check the path of the catalogue.")
    try:
        with _opened(path) as hdus:
            hdu = _table(hdus, wanted, path)
            found = require_columns(wanted, hdu.columns.names, str(path), mend)
            for column in found.values():
                if hdu.columns.dtype[column].shape not in ((), (1,)):
                    raise SpectangleError(
                        f"{path}: column '{column}' holds {hdu.columns.dtype[column].shape} values a row; one was "
                        "expected."
                    )
            if _is_plain(path, hdu, found):
                return _read_blocks(path, hdu, found)
            scaled = {key: np.asarray(hdu.data[column]) for key, column in found.items()}
            return {key: values.astype(values.dtype.newbyteorder("=")) for key, values in scaled.items()}
    except (OSError, TypeError, ValueError) as error:
        raise SpectangleError(
            f"{path} cannot be read as FITS ({error}): it is truncated or of another format. Download it again."
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A FITS file without astropy's own warnings: what is wrong with it is said in a sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=True) as hdus:
            yield hdus


def _tables(hdus, path: Path) -> list[Any]:
    """The tables of a file, those with rows if there are any: SDSS's files begin with an empty one of the same
    columns.
    """
    tables: list[Any] = [hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)]
    if not tables:
        raise SpectangleError(f"{path} holds no binary table; check that it is the catalogue.")
    return [hdu for hdu in tables if hdu.header["NAXIS2"]] or tables


def _table(hdus, wanted: Mapping[str, str], path: Path) -> Any:
    tables = _tables(hdus, path)
    names = {column.lower() for column in wanted.values()}
    return next((hdu for hdu in tables if names <= {name.lower() for name in hdu.columns.names}), tables[0])


def _is_plain(path: Path, hdu, found: Mapping[str, str]) -> bool:
    with open(path, "rb") as file:
        compressed = file.read(6) != b"SIMPLE"
    scaled = any(
        hdu.columns[c].bscale not in (None, "", 1) or hdu.columns[c].bzero not in (None, "", 0) for c in found.values()
    )
    logical = any(hdu.columns[c].format.endswith("L") for c in found.values())  # stored as the letters T and F
    return not (compressed or scaled or logical)


def _read_blocks(path: Path, hdu, found: Mapping[str, str]) -> dict[str, np.ndarray]:
    record: Any = hdu.columns.dtype.newbyteorder(">")
    n_rows = hdu.header["NAXIS2"]
    result = {key: np.empty(n_rows, dtype=record[column].base.newbyteorder("=")) for key, column in found.items()}
    rows = max(1, BLOCK_BYTES // record.itemsize)
    with open(path, "rb") as file:
        file.seek(hdu.fileinfo()["datLoc"])
        for start in range(0, n_rows, rows):
            block: Any = np.fromfile(file, dtype=record, count=min(rows, n_rows - start))
            if len(block) < min(rows, n_rows - start):
                raise SpectangleError(
                    f"{path} ends after row {start + len(block)} of {n_rows}: it is truncated. Download it again."
                )
            for key, column in found.items():
                result[key][start : start + len(block)] = block[column].reshape(-1)
    return result
