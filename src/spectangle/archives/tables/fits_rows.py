"""Tables of a FITS file, of which some rows at a time are read, as astropy reads the whole.

Astropy reads a table with its units, scales and masks whole, or through a memory map, whose pages count as memory of
the process on a cluster. So it is given each block as a file of its own: the header of the table, the bytes of these
rows, and what they point at of the heap, where arrays of varying length lie.
"""

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.table import Table

from spectangle.archives.tables.fits_file import cards, fits_parts
from spectangle.archives.tables.stored_table import StoredTable
from spectangle.errors import SpectangleError

__all__ = ["fits_tables"]

CARD, BLOCK = 80, 2880  # bytes of a line of the header, and what every part of a file is filled up to
POINTERS = {"P": ">i4", "Q": ">i8"}  # a length and an offset in the heap
BITS = {"X": 1} | dict.fromkeys("LBA", 8) | {"I": 16} | dict.fromkeys("JE", 32) | dict.fromkeys("KDC", 64) | {"M": 128}


def fits_tables(file: BinaryIO, where: str) -> Iterator[StoredTable]:
    """The tables of an open file, each with the keywords of the file's first part as meta."""
    parts = fits_parts(file, where)
    for hdu in parts:
        if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU)):
            yield _stored(file, where, hdu, cards(parts[0].header))


def _stored(file: BinaryIO, where: str, hdu: Any, keywords: dict[str, Any]) -> StoredTable:
    n_rows, record = hdu.header["NAXIS2"], hdu.columns.dtype
    wide = [name for name in hdu.columns.names if record[name].shape not in ((), (1,)) or record[name].base.kind == "S"]

    def read(at_once: int) -> Iterator[Any]:
        if at_once >= n_rows:
            yield _table(hdu, keywords)
        elif not isinstance(hdu, fits.BinTableHDU) or record.itemsize != hdu.header["NAXIS1"]:
            whole = _table(hdu, keywords)
            yield from (whole[start : start + at_once] for start in range(0, n_rows, at_once))
        else:
            for start in range(0, n_rows, at_once):
                yield _table(_block(file, where, hdu, start, min(at_once, n_rows - start)), keywords)

    return StoredTable(where, "FITS", hdu.columns.names, wide, n_rows, read)


def _table(hdu: Any, keywords: dict[str, Any]) -> Table:
    table = Table.read(hdu)
    table.meta = {**keywords, **table.meta}
    return table


def _block(file: BinaryIO, where: str, hdu: Any, start: int, count: int) -> Any:
    """Some rows of a table as a table of their own."""
    place, width = hdu.fileinfo(), hdu.header["NAXIS1"]
    header = _bytes(file, where, place["hdrLoc"], place["datLoc"] - place["hdrLoc"])
    rows = np.frombuffer(
        _bytes(file, where, place["datLoc"] + start * width, count * width), hdu.columns.dtype.newbyteorder(">")
    ).copy()
    heap_at = place["datLoc"] + hdu.header.get("THEAP", width * hdu.header["NAXIS2"])
    heap = bytearray()
    for column in hdu.columns:
        if pointer := re.match(r"\d*([PQ])([A-Z])", str(column.format)):
            lengths, offsets = rows[column.name].view(POINTERS[pointer[1]]).reshape(count, 2).T
            ends = offsets + -(-lengths * BITS[pointer[2]] // 8)
            filled = lengths > 0
            low, high = (offsets[filled].min(), ends[filled].max()) if filled.any() else (0, 0)
            offsets[:] = np.where(filled, offsets - low + len(heap), 0)
            heap += _bytes(file, where, heap_at + int(low), int(high - low))
    changed = {"NAXIS2": count, "PCOUNT": len(heap), "THEAP": count * width}
    data = rows.tobytes() + heap
    return fits.BinTableHDU.fromstring(_with_numbers(header, changed) + data + bytes(-len(data) % BLOCK))


def _with_numbers(header: bytes, numbers: dict[str, int]) -> bytes:
    """A header in which some keywords that it has are other numbers."""
    lines = [header[at : at + CARD] for at in range(0, len(header), CARD)]
    for i, line in enumerate(lines):
        key = line[:8].decode("latin-1").rstrip()
        if key in numbers and line[8:10] == b"= ":
            lines[i] = f"{key:8}= {numbers[key]:>20}".ljust(CARD).encode()
    return b"".join(lines)


def _bytes(file: BinaryIO, where: str, at: int, count: int) -> bytes:
    file.seek(at)
    content = file.read(count) if at >= 0 <= count else b""
    if len(content) < count or count < 0:
        raise SpectangleError(f"{where} ends before its rows do: it is truncated or damaged; download the file again.")
    return content
