"""Gaia RVS spectra as text with one row per star: the bulk files `RvsMeanSpectrum_*.csv.gz`, and DataLink RAW.

The columns are source_id, solution_id, ra, dec, flux, flux_error, combined_transits, combined_ccds, deblended_ccds;
flux and flux_error are lists, missing scalars read null, lines that begin with # are an ECSV header (Gaia DR3
documentation 20.12.1). Only the rows of wanted stars are parsed, and a chunk at a time is held.
"""

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from spectangle.archives.columns import find_column, require_columns
from spectangle.archives.flux_lists import NULLS, parse_lists
from spectangle.archives.rows import BadRows
from spectangle.archives.source_ids import RoundedIds, check_not_rounded, parse_id, positions_in
from spectangle.archives.spectra import SpectraChunk
from spectangle.errors import SpectangleError

__all__ = ["header_lines", "read_bulk"]

BLOCK = 8 << 20  # bytes of text in a chunk, about 150 stars


def header_lines(path: Path) -> tuple[int, str]:
    """Count the comment lines at the top of a text file (gzip or not), and return the line that names the columns."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        for count, line in enumerate(file):
            if not line.startswith(b"#"):
                return count, line.decode("utf-8", "replace").strip()
    raise SpectangleError(f"{path} holds no table: it is empty or a header only. Download it again.")


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
        columns: Names of source_id, flux, flux_error in the file.
        grid: Function of the number of pixels that gives the wavelengths [P] in nm.
        wanted: Sorted ids [m] int64; None reads every star.

    Raises:
        SpectangleError: The file is truncated, lacks a column, or has too many bad rows.
    """
    n_comments, names = header_lines(path)
    keys = {key: columns[key] for key in ("source_id", "flux", "flux_error")}
    names = [name.strip().strip('"') for name in names.split(",")]
    if find_column(columns["flux_error"], names) is None:
        del keys["flux_error"]
    found = require_columns(keys, names, str(path))
    counter = _RowCounter(path, bad, header=n_comments + 1)
    n_pixels = None
    for batch in _batches(path, n_comments, found, counter):
        chunk = _chunk(path, batch, found, counter.numbers(len(batch)), bad, n_pixels, wanted, grid)
        if chunk is not None:
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
        self.bad.skip(self.path, number, f"it has {row.actual_columns} fields and the header names {row.expected_columns}")
        return "skip"

    def numbers(self, n: int) -> np.ndarray:
        rows = []
        while len(rows) < n:
            if self.next not in self.skipped:
                rows.append(self.next)
            self.next += 1
        return np.array(rows, dtype=np.int64)


def _batches(path: Path, n_comments: int, found: Mapping[str, str], counter: _RowCounter) -> Iterator[pa.RecordBatch]:
    types = {name: pa.string() for name in found.values()}
    refused: list[SpectangleError] = []

    def malformed(row):
        try:
            return counter.malformed(row)
        except SpectangleError as error:  # Arrow would hide it
            refused.append(error)
            return "error"

    try:
        with pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as stream:
            reader = pyarrow.csv.open_csv(
                stream,
                read_options=pyarrow.csv.ReadOptions(skip_rows=n_comments, block_size=BLOCK, use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=malformed),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(found.values()), column_types=types, null_values=["", *NULLS], strings_can_be_null=True
                ),
            )
            yield from reader
    except (pa.ArrowInvalid, OSError) as error:
        if refused:
            raise refused[0] from None
        reason = "it is truncated" if "runcated" in str(error) or "incorrect" in str(error) else f"it cannot be read ({error})"
        raise SpectangleError(f"{path}, after row {counter.next - 1}: {reason}. Download the file again.") from None


def _chunk(path, batch, found, rows, bad, n_pixels, wanted, grid) -> SpectraChunk | None:
    """Turn the wanted rows of a batch into a chunk; None when there is none."""
    ids, readable = _ids(path, batch.column(found["source_id"]), rows, bad)
    bad.note(ids)
    check_not_rounded(ids[readable], f"{path}, column {found['source_id']}")
    keep = readable if wanted is None else readable & (positions_in(ids, wanted) >= 0)
    if not keep.any():
        return None
    batch = batch.filter(pa.array(keep))
    flux, reasons = parse_lists(batch.column(found["flux"]), n_pixels)
    error = None
    if "flux_error" in found:
        error, more = parse_lists(batch.column(found["flux_error"]), flux.shape[1])
        reasons = {i: f"flux: {why}" for i, why in reasons.items()} | {i: f"flux_error: {why}" for i, why in more.items() if i not in reasons}
    for i, why in sorted(reasons.items()):
        bad.skip(path, int(rows[keep][i]), why)
    chunk = SpectraChunk(path, rows[keep], ids[keep], flux, error, grid(flux.shape[1]))
    return chunk.keep(~np.isin(np.arange(len(chunk)), list(reasons)))


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
            bad.skip(path, int(rows[i]), f"source_id came as '{text}', which is no integer")
            readable[i] = False
    return ids, readable
