"""Tables of any form, told by their content and not by their names: FITS, VOTable, Parquet, ECSV, IPAC, and text with
commas, tabs, semicolons, bars or blanks between its columns, each also gzipped.
"""

import bz2
import gzip
import io
import lzma
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from astropy.io import votable
from astropy.table import Table

from spectangle.archives.tables.columns import find_column
from spectangle.archives.tables.fits_rows import fits_tables
from spectangle.archives.tables.parquet_table import parquet_tables
from spectangle.archives.tables.stored_table import StoredTable, in_memory, unreadable_refused
from spectangle.errors import SpectangleError

__all__ = [
    "MISSING_WORDS",
    "EmptyTable",
    "NoTable",
    "decompressed",
    "first_table",
    "form_of",
    "names_in",
    "read_table",
    "stored_tables",
    "text_of",
]

MISSING_WORDS = (
    "",
    "null",
    "NULL",
    "Null",
    "NA",
    "N/A",
    "n/a",
    "nan",
    "NaN",
    "NAN",
    "None",
    "none",
    "--",
)  # cells of text tables without a value
FILL = [(word, "0") for word in MISSING_WORDS]
MAGIC = {b"SIMPLE  =": "FITS", b"\x89HDF\r\n": "HDF5", b"PAR1": "Parquet", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip"}
COMPRESSED = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}
BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
SEPARATORS = (",", "\t", ";", "|")


class NoTable(SpectangleError):
    """A file that holds something else than a table."""


class EmptyTable(NoTable):
    """A file without a row: of no bytes, or a header only."""


def form_of(start: bytes) -> str:
    """What a file is, by its first bytes (a kilobyte will do): FITS, HDF5, Parquet, zip, VOTable, ECSV, IPAC, text, or
    empty.
    """
    for magic, form in MAGIC.items():
        if start.startswith(magic):
            return form
    text = text_of(start).lstrip()
    if not text:
        return "empty"
    if text.startswith("<"):
        return "VOTable"
    if re.match(r"#\s*%ECSV", text):
        return "ECSV"
    return "IPAC" if text[0] in "\\|" else "text"


def decompressed(content: bytes, where: str) -> bytes:
    """The bytes of a file without the compression that its first bytes tell.

    Raises:
        SpectangleError: The compressed file is damaged.
    """
    for magic, decompress in COMPRESSED.items():
        if content.startswith(magic):
            try:
                return decompress(content)
            except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
                raise SpectangleError(
                    f"{where} cannot be decompressed ({error}): it is truncated or damaged; download the file again."
                ) from None
    return content


def text_of(content: bytes) -> str:
    """Text of any usual encoding, without a byte-order mark, its lines ending in newlines."""
    encoding = next((name for bom, name in BOMS.items() if content.startswith(bom)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def names_in(line: str) -> tuple[list[str], str | None]:
    """The names in the line that names a text table's columns, and what separates them (None: blanks)."""
    unquoted = re.sub(r'"[^"]*"', "", line)
    separator = next((mark for mark in SEPARATORS if mark in unquoted), None)
    return [name.strip().strip("\"'") for name in line.strip().split(separator)], separator


def stored_tables(file: BinaryIO, where: str) -> list[StoredTable]:
    """Every table of an open file, with what stands outside its columns as meta; FITS and Parquet are read while their
    rows are asked for, all others at once.

    Raises:
        NoTable: The file is empty (:class:`EmptyTable`), or holds something else than tables.
        SpectangleError: It cannot be read.
    """
    form = form_of(file.read(max(map(len, MAGIC))))
    file.seek(0)
    if form not in READ_BY_ROWS:
        content = decompressed(file.read(), where)
        file, form = io.BytesIO(content), form_of(content)
    if form == "empty":
        raise EmptyTable(f"{where} is empty; download it again.")
    if form in NOT_A_TABLE:
        raise NoTable(f"{where} {NOT_A_TABLE[form]}")
    with unreadable_refused(where, form):
        if reader := READ_BY_ROWS.get(form):
            found = list(reader(file, where))
        else:
            found = [in_memory(table, where, form) for table in READERS[form](file.read(), where)]
    if not found:
        raise NoTable(
            f"{where} holds no table: as {form} it has " + ("images or headers only." if form == "FITS" else "none.")
        )
    return found


NOT_A_TABLE = {
    "zip": "is a zip file, or an Excel workbook; unpack it, or save its sheet as CSV.",
    "HDF5": "is an HDF5 file; a table was expected: write it as ECSV, CSV, VOTable or FITS.",
}


def first_table(content: bytes, where: str, wanted: Sequence[str] = ()) -> Any:
    """The first table with rows and a column of one of the wanted names, else the first with rows.

    Raises:
        EmptyTable: None has a row.
        SpectangleError: See :func:`stored_tables`.
    """
    with_rows = [table for table in stored_tables(io.BytesIO(content), where) if table.n_rows]
    if not with_rows:
        raise EmptyTable(
            f"{where} has no row: it is a header only. Download it again, or write the table with its rows."
        )
    return next(
        (table for table in with_rows if any(find_column(name, table.names) for name in wanted)), with_rows[0]
    ).whole()


def read_table(path: str | Path, wanted: Sequence[str] = ()) -> Any:
    """Read a table from a file, see :func:`first_table`; ids stay integers.

    Raises:
        SpectangleError: The file is missing, holds no table, or cannot be read.
    """
    if not Path(path).is_file():
        raise SpectangleError(f"There is no file {path}; check the path of the table.")
    return first_table(Path(path).read_bytes(), str(path), wanted)


def _votable_tables(content: bytes, where: str) -> Iterator[Any]:
    for part in votable.parse(io.BytesIO(content)).iter_tables():
        table = part.to_table(use_names_over_ids=True)
        table.meta |= {param.name: param.value for param in part.params}
        yield table


def _text_table(content: bytes, where: str) -> Iterator[Any]:
    text = text_of(content)
    if form_of(content) == "ECSV":
        yield Table.read(text, format="ascii.ecsv", fill_values=FILL)
        return
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    if not lines:
        raise EmptyTable(f"{where} holds no table: it is empty or a header only. Download it again.")
    names, separator = names_in(lines[0])
    if form_of(content) == "IPAC":
        yield (
            Table.read(text, format="ascii.ipac")
            if text.count("\n|") or text.startswith("|")
            else _separated(text, "|", names)
        )
    elif separator is None:
        yield Table.read(text + "\n", format="ascii", fill_values=FILL)
    else:
        yield _separated(text, separator, names)


def _separated(text: str, separator: str, names: Sequence[str]) -> Any:
    """Columns with a mark between them; without a line of names they are col1, col2 ..."""
    form = (
        "ascii.no_header"
        if all(_is_number(name) for name in names)
        else "ascii.tab"
        if separator == "\t"
        else "ascii.basic"
    )
    options = {} if form == "ascii.tab" else {"delimiter": separator, "comment": "#"}
    return Table.read(text + "\n", format=form, guess=False, fill_values=FILL, **options)


READ_BY_ROWS = {"FITS": fits_tables, "Parquet": parquet_tables}
READERS = {"VOTable": _votable_tables} | dict.fromkeys(("ECSV", "IPAC", "text"), _text_table)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
