"""Tables of any form, told by their content and not by their names: FITS, VOTable, Parquet, ECSV, IPAC, and text with
commas, tabs, semicolons, bars or blanks between its columns, each also gzipped.
"""

import bz2
import gzip
import io
import lzma
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits, votable
from astropy.table import MaskedColumn, Table

from spectangle.archives.tables.columns import find_column
from spectangle.archives.tables.fits_file import cards, open_fits
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
    "tables_in",
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


def tables_in(content: bytes, where: str) -> Iterator[Any]:
    """Every table of a file, with what stands outside its columns as meta.

    Raises:
        NoTable: The file is empty (:class:`EmptyTable`), or holds something else than tables.
        SpectangleError: It cannot be read.
    """
    content = decompressed(content, where)
    form = form_of(content)
    if form == "empty":
        raise EmptyTable(f"{where} is empty; download it again.")
    if form in NOT_A_TABLE:
        raise NoTable(f"{where} {NOT_A_TABLE[form]}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = list(READERS[form](content, where))
    except SpectangleError:
        raise
    except Exception as error:  # astropy raises many kinds
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        said = "its lines do not have the same columns" if "guess table format" in said else said
        raise SpectangleError(
            f"{where} cannot be read as {form} ({said}); download the file again, or write it as ECSV, CSV, "
            "VOTable or FITS."
        ) from None
    if not found:
        raise NoTable(
            f"{where} holds no table: as {form} it has " + ("images or headers only." if form == "FITS" else "none.")
        )
    yield from found


NOT_A_TABLE = {
    "zip": "is a zip file, or an Excel workbook; unpack it, or save its sheet as CSV.",
    "HDF5": "is an HDF5 file; a table was expected: write it as ECSV, CSV, VOTable or FITS.",
}


def first_table(content: bytes, where: str, wanted: Sequence[str] = ()) -> Any:
    """The first table with rows and a column of one of the wanted names, else the first with rows.

    Raises:
        EmptyTable: None has a row.
        SpectangleError: See :func:`tables_in`.
    """
    with_rows = [table for table in tables_in(content, where) if len(table)]
    if not with_rows:
        raise EmptyTable(
            f"{where} has no row: it is a header only. Download it again, or write the table with its rows."
        )
    return next(
        (table for table in with_rows if any(find_column(name, table.colnames) for name in wanted)), with_rows[0]
    )


def read_table(path: str | Path, wanted: Sequence[str] = ()) -> Any:
    """Read a table from a file, see :func:`first_table`; ids stay integers.

    Raises:
        SpectangleError: The file is missing, holds no table, or cannot be read.
    """
    if not Path(path).is_file():
        raise SpectangleError(f"There is no file {path}; check the path of the table.")
    return first_table(Path(path).read_bytes(), str(path), wanted)


def _fits_tables(content: bytes, where: str) -> Iterator[Any]:
    with open_fits(io.BytesIO(content), where) as hdulist:
        for hdu in hdulist:
            if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU)):
                table = Table.read(hdu)
                table.meta = {**cards(hdulist[0].header), **table.meta}
                yield table


def _votable_tables(content: bytes, where: str) -> Iterator[Any]:
    for part in votable.parse(io.BytesIO(content)).iter_tables():
        table = part.to_table(use_names_over_ids=True)
        table.meta |= {param.name: param.value for param in part.params}
        yield table


def _parquet_table(content: bytes, where: str) -> Iterator[Any]:
    """Numbers and text with their nulls as masks: astropy's own reader needs pandas, which makes floats of ids with
    nulls.
    """
    import pyarrow as pa
    import pyarrow.parquet

    columns = {}
    for name, column in zip(
        (table := pyarrow.parquet.read_table(io.BytesIO(content))).column_names, table.columns, strict=True
    ):
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        known = column.fill_null("" if is_text else 0) if is_text or pa.types.is_integer(column.type) else column
        values = known.to_numpy()
        columns[name] = MaskedColumn(values.astype(str) if is_text else values, mask=column.is_null().to_numpy())
    yield Table(columns)


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


READERS = {"FITS": _fits_tables, "VOTable": _votable_tables, "Parquet": _parquet_table}
READERS |= dict.fromkeys(("ECSV", "IPAC", "text"), _text_table)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
