"""Gaia RVS spectra as text with one row per star: the bulk files `RvsMeanSpectrum_*.csv.gz`, and DataLink RAW.

The columns are source_id, solution_id, ra, dec, flux, flux_error, combined_transits, combined_ccds, deblended_ccds;
flux and flux_error are lists, missing scalars read null, lines that begin with # are an ECSV header (Gaia DR3
documentation 20.12.1). Only the rows of wanted stars are parsed, and a chunk at a time is held.
"""

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from spectangle.archives.gaia.flux_lists import NULLS, parse_lists
from spectangle.archives.gaia.own_grids import chunks_by_grid, only_wanted
from spectangle.archives.spectra.chunk import SpectraChunk
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.archives.tables.columns import find_column, require_columns
from spectangle.archives.tables.table_file import EmptyTable, names_in
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import RoundedIds, check_not_rounded, parse_id

__all__ = ["ONE_PIXEL", "header_lines", "is_gzip", "read_bulk"]

BLOCK = 8 << 20  # bytes of text in a chunk, about 150 stars
BOM = b"\xef\xbb\xbf"
ONE_PIXEL = "has one value in a row: lists of flux were expected, or a row for each pixel and a column of wavelengths."


def is_gzip(path: Path) -> bool:
    """Whether a file is gzipped, by its content.

    Raises:
        SpectangleError: It is not, though its name says so.
    """
    with open(path, "rb") as file:
        start = file.read(2)
    if start and start != b"\x1f\x8b" and path.suffix.lower() == ".gz":
        raise SpectangleError(f"{path} is no gzip file, though its name says so; download the file again.")
    return start == b"\x1f\x8b"


def header_lines(path: Path, rows: int = 0) -> tuple[int, list[str]]:
    """Count the comment lines at the top of a text file (gzip or not); return the line that names the columns and some
    rows after it.

    Raises:
        EmptyTable: There is no such line, or not a row.
        SpectangleError: The file is truncated.
    """
    count, lines = 0, []
    try:
        with gzip.open(path, "rb") if is_gzip(path) else open(path, "rb") as file:
            for line in file:
                if line.removeprefix(BOM).startswith(b"#") and not lines:
                    count += 1
                elif line.strip() and len(lines) <= max(rows, 1):
                    lines.append(line.decode("utf-8-sig", "replace").strip("\r\n"))
                elif len(lines) > max(rows, 1):
                    break
    except (OSError, EOFError) as error:
        raise SpectangleError(f"{path} cannot be read ({error}); download the file again.") from None
    if not lines:
        raise EmptyTable(f"{path} holds no table: it is empty or a header only. Download it again.")
    if len(lines) == 1:
        raise EmptyTable(f"{path} has no row: it is a header only. Download it again.")
    return count, lines


def read_bulk(
    path: Path,
    bad: BadRows,
    columns: Mapping[str, str],
    grid,
    wanted: np.ndarray | None = None,
) -> Iterator[SpectraChunk]:
    """Yield the wanted stars of a file in chunks.

    Arguments:
        path: The file, gzip or plain text.
        bad: Where to count rows that cannot be read.
        columns: Names of source_id, flux, flux_error, wavelength in the file.
        grid: Function of the number of pixels that gives the wavelengths [P] in nm of a file without them.
        wanted: Sorted ids [m] int64; None reads every star.

    Raises:
        SpectangleError: The file is truncated, lacks a column, or has too many bad rows.
    """
    n_comments, lines = header_lines(path)
    names, separator = names_in(lines[0])
    there = [key for key in ("flux_error", "wavelength") if find_column(columns[key], names) is not None]
    keys = {key: columns[key] for key in ("source_id", "flux", *there)}
    found = require_columns(keys, names, str(path), bad.other_columns)
    counter = _RowCounter(path, bad, header=n_comments + 1)
    n_pixels = None
    for batch in _batches(path, n_comments, separator or " ", found, counter):
        for chunk in _chunks(path, batch, found, counter.numbers(len(batch)), bad, n_pixels, wanted, grid):
            n_pixels = len(chunk.wavelength)
            yield chunk


class _RowCounter:
    """Number the data rows of a file from 1, also when Arrow skips malformed ones."""

    def __init__(self, path: Path, bad: BadRows, header: int):
        self.path, self.bad, self.header = path, bad, header
        self.skipped: set[int] = set()
        self.next = 1

    def malformed(self, row) -> str:
        number = row.number - self.header  # Arrow numbers the lines of the file
        self.skipped.add(number)
        self.bad.skip(
            self.path, number, f"it has {row.actual_columns} fields and the header names {row.expected_columns}"
        )
        return "skip"

    def numbers(self, n: int) -> np.ndarray:
        rows = []
        while len(rows) < n:
            if self.next not in self.skipped:
                rows.append(self.next)
            self.next += 1
        return np.array(rows, dtype=np.int64)


def _batches(
    path: Path, n_comments: int, separator: str, found: Mapping[str, str], counter: _RowCounter
) -> Iterator[pa.RecordBatch]:
    types = {name: pa.string() for name in found.values()}
    refused: list[SpectangleError] = []

    def malformed(row):
        try:
            return counter.malformed(row)
        except SpectangleError as error:  # Arrow would hide it
            refused.append(error)
            return "error"

    try:
        with _opened(path) as stream:
            reader = pyarrow.csv.open_csv(
                stream,
                read_options=pyarrow.csv.ReadOptions(skip_rows=n_comments, block_size=BLOCK, use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(delimiter=separator, invalid_row_handler=malformed),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(found.values()),
                    column_types=types,
                    null_values=["", *NULLS],
                    strings_can_be_null=True,
                ),
            )
            yield from reader
    except (pa.ArrowInvalid, OSError) as error:
        if refused:
            raise refused[0] from None
        reason = (
            "it is truncated"
            if "runcated" in str(error) or "incorrect" in str(error)
            else f"it cannot be read ({error})"
        )
        raise SpectangleError(f"{path}, after row {counter.next - 1}: {reason}. Download the file again.") from None


def _opened(path: Path) -> Any:
    """The text of a file, as a stream for Arrow, after its byte-order mark."""
    compression = "gzip" if is_gzip(path) else None
    with pa.input_stream(str(path), compression=compression) as stream:
        marked = stream.read(len(BOM)) == BOM
    stream = pa.input_stream(str(path), compression=compression)
    if marked:
        stream.read(len(BOM))
    return stream


def _chunks(path, batch, found, rows, bad, n_pixels, wanted, grid) -> Iterator[SpectraChunk]:
    """Turn the wanted rows of a batch into a chunk for each grid that they have."""
    ids, readable = _ids(path, batch.column(found["source_id"]), rows, bad)
    bad.note(ids)
    check_not_rounded(ids[readable], f"{path}, column {found['source_id']}")
    keep = readable & only_wanted(ids, wanted)
    if not keep.any():
        return
    batch = batch.filter(pa.array(keep))
    flux, reasons = parse_lists(batch.column(found["flux"]), n_pixels)
    if flux.shape[1] < 2:
        raise SpectangleError(f"{path}: column '{found['flux']}' {ONE_PIXEL}")
    reasons = {i: f"flux: {why}" for i, why in reasons.items()}
    others: dict[str, np.ndarray] = {}
    for key in ("flux_error", "wavelength"):
        if key in found:
            others[key], more = parse_lists(batch.column(found[key]), flux.shape[1])
            reasons = {i: f"{key}: {why}" for i, why in more.items()} | reasons
    for i, why in sorted(reasons.items()):
        bad.skip(path, int(rows[keep][i]), why)
    good = ~np.isin(np.arange(len(flux)), list(reasons))
    chunk = SpectraChunk(path, rows[keep], ids[keep], flux, others.get("flux_error"), grid(flux.shape[1])).keep(good)
    if "wavelength" in others:
        yield from chunks_by_grid(chunk, others["wavelength"][good].astype(np.float64).round(5))
    else:
        yield chunk


def _ids(path, column: pa.Array, rows: np.ndarray, bad: BadRows) -> tuple[np.ndarray, np.ndarray]:
    """Ids [n] int64 and which of them could be read [n]; an id written as a float refuses the file."""
    ids, readable = np.zeros(len(column), dtype=np.int64), np.ones(len(column), dtype=bool)
    if column.null_count == 0:  # with nulls, Arrow would hand out floats
        try:
            return column.cast(pa.int64()).to_numpy(), readable
        except pa.ArrowInvalid:
            pass
    for i, text in enumerate(column.to_pylist()):
        try:
            ids[i] = parse_id(text, f"{path}, row {rows[i]}")
        except RoundedIds:
            raise
        except SpectangleError:
            bad.skip(path, int(rows[i]), f"source_id came as '{text}', which is no integer of 63 bits")
            readable[i] = False
    return ids, readable
