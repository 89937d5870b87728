"""Gaia RVS spectra as DataLink sends them: INDIVIDUAL (one row per pixel) and RAW (one row per star), in every format.

CSV, ECSV, VOTable (.xml, .vot) and FITS files, each also gzipped or inside the zip file of a download; DR3 calls the
product RVS, DR4 MEAN_SPECTRUM_RVS, and DR4 calls the structures DATAMODEL_STANDARD (INDIVIDUAL) and DATAMODEL_GAIA
(RAW): what a file holds is read from its columns, not from its name. Where INDIVIDUAL keeps source_id outside the
table (VOTable PARAM, FITS header, ECSV meta), it is found there, or at last in the file name.
"""

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from astropy.table import Table

from spectangle.archives.gaia.flux_lists import parse_lists
from spectangle.archives.gaia.gaia_bulk import ONE_PIXEL, header_lines, is_gzip, read_bulk
from spectangle.archives.gaia.own_grids import RVS_RANGE, chunks_by_grid, only_wanted
from spectangle.archives.spectra.chunk import SpectraChunk
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.archives.tables.columns import find_column, require_columns
from spectangle.archives.tables.stored_table import StoredTable
from spectangle.archives.tables.table_file import EmptyTable, NoTable, form_of, names_in, stored_tables
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import NO_ID, as_source_ids, check_not_rounded, parse_id
from spectangle.survey.wavelengths import check_range

__all__ = ["SUFFIXES", "no_rvs", "read_gaia"]

SUFFIXES = (".csv", ".tsv", ".ecsv", ".txt", ".xml", ".vot", ".votable", ".fits", ".fit", ".fts", ".parquet", ".zip")
OTHER_PRODUCTS = re.compile(
    r"(^|[^A-Z])(XP_|EPOCH_|MCMC_)|_XP([^A-Z]|$)|PHOTOMETRY|ASTROMETRY"
)  # in names of DataLink's files
START = 4096  # bytes that tell the form of a file
STARS = 1024  # with arrays of theirs that are read at a time: 10 MB of flux


def no_rvs(name: str) -> str | None:
    """Why a file of this name holds no RVS mean spectra; None if it may."""
    name = name.replace("\\", "/")
    last = name.rpartition("/")[2]
    if last.startswith(("_", ".")) or "__MACOSX" in name:
        return "is hidden by its name"
    if not last.lower().removesuffix(".gz").endswith(SUFFIXES):
        return "has the ending of no spectrum"
    return "is another product than RVS mean spectra" if OTHER_PRODUCTS.search(last) else None


def read_gaia(
    path: Path, bad: BadRows, columns: Mapping[str, str], grid, wanted: np.ndarray | None = None
) -> Iterator[SpectraChunk]:
    """Yield the wanted stars of one file of any form; arguments as in :func:`gaia_bulk.read_bulk`.

    A file without a row is a bad row; one without a table is left out; both are named.

    Raises:
        SpectangleError: The file cannot be read, lacks a column, or its wavelengths are not nm in vacuum.
    """
    if not path.is_file():
        raise SpectangleError(f"There is no file {path}.")
    with open(path, "rb") as file:
        form = form_of(file.read(START))
    if form == "zip":
        yield from _from_zip(path, bad, columns, grid, wanted)
    elif _one_row_per_star(path, columns):
        yield from read_bulk(path, bad, columns, grid, wanted)
    else:
        with open(path, "rb") as file:
            yield from _from_file(path, file, bad, columns, grid, wanted)


def _one_row_per_star(path: Path, columns: Mapping[str, str]) -> bool:
    """Whether a file is text with lists, seen from its first lines."""
    with gzip.open(path, "rb") if is_gzip(path) else open(path, "rb") as file:
        try:
            start = file.read(START)
        except (OSError, EOFError) as error:
            raise SpectangleError(f"{path} cannot be read ({error}); download the file again.") from None
    if form_of(start) not in ("text", "ECSV") or start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    try:
        _, (line, first, *_) = header_lines(path)
    except EmptyTable:
        return False  # it is said where the file is read
    names, _ = names_in(line)
    return "[" in first or "(" in first or find_column(columns["wavelength"], names) is None


def _from_zip(path: Path, bad: BadRows, columns, grid, wanted) -> Iterator[SpectraChunk]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise SpectangleError(f"{path} is no complete zip file; download it again.") from None
    with archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if why := no_rvs(member.filename):
                bad.leave_out(f"{path / member.filename}: {why}")
                continue
            try:
                content = archive.read(member)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
                raise SpectangleError(
                    f"{path / member.filename} cannot be unpacked ({error}); download {path.name} again."
                ) from None
            yield from _from_file(path / member.filename, io.BytesIO(content), bad, columns, grid, wanted)


def _from_file(path: Path, file: BinaryIO, bad: BadRows, columns, grid, wanted) -> Iterator[SpectraChunk]:
    try:
        tables = [table for table in stored_tables(file, str(path)) if table.n_rows]
        if not tables:
            raise EmptyTable(f"{path} has no row: it is a header only. Download it again.")
    except EmptyTable as error:
        bad.add(1, [str(error).removesuffix(".")])
        return
    except NoTable as error:
        bad.leave_out(str(error))
        return
    for table in tables:
        yield from _from_table(path, table, bad, columns, grid, wanted)


def _from_table(path: Path, table: StoredTable, bad, columns, grid, wanted) -> Iterator[SpectraChunk]:
    keys = {key: columns[key] for key in ("flux",)}
    for key in ("source_id", "flux_error", "wavelength"):
        if find_column(columns[key], table.names) is not None:
            keys[key] = columns[key]
    found = require_columns(keys, table.names, str(path), bad.other_columns)
    if found["flux"] in table.wide:
        chunks = _raw(path, table, found, bad, grid)
    else:
        chunks = iter([_individual(path, table.whole(), found, columns)])
    for chunk, grids, unit in chunks:
        bad.note(chunk.source_id)
        check_not_rounded(chunk.source_id, f"{path}, column {columns['source_id']}")
        keep = only_wanted(chunk.source_id, wanted)
        if grids is None:
            yield chunk.keep(keep)
        else:
            yield from chunks_by_grid(chunk.keep(keep), grids[keep], unit)


def _individual(
    path: Path, table: Any, found: Mapping[str, str], columns: Mapping[str, str]
) -> tuple[SpectraChunk, np.ndarray, Any]:
    """One star, or several one after the other, with a row per pixel; the wavelengths [n, P] of each, their unit."""
    if "wavelength" not in found:
        missing = columns["wavelength"]
        raise SpectangleError(
            f"{path} has one row per pixel and no column '{missing}'; download it again with its wavelengths."
        )
    if "source_id" in found:
        ids = as_source_ids(table[found["source_id"]], f"{path}, column {found['source_id']}")
        if NO_ID in ids:
            raise SpectangleError(
                f"{path}, row {int(np.argmax(ids == NO_ID)) + 1}: the pixel has no source_id; one for each was "
                "expected."
            )
    else:
        ids = np.full(len(table), _id_outside(path, table, columns["source_id"]))
    stars, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if len(set(counts)) > 1:
        star = stars[np.argmin(counts)]
        raise SpectangleError(
            f"{path}: star {star} has {counts.min()} pixels and another {counts.max()}; every star must have all."
        )
    order = np.argsort(ids, kind="stable")
    column = table[found["wavelength"]]
    _refuse_air(path, column)
    shape = (len(stars), -1)
    grids = _floats(column, np.float64)[order].reshape(shape)
    flux = _floats(table[found["flux"]])[order].reshape(shape)
    error = _floats(table[found["flux_error"]])[order].reshape(shape) if "flux_error" in found else None
    return SpectraChunk(path, first + 1, stars, flux, error, grids[0]), grids, column.unit


def _raw(
    path: Path, table: StoredTable, found: Mapping[str, str], bad: BadRows, grid
) -> Iterator[tuple[SpectraChunk, np.ndarray | None, Any]]:
    """A row per star, with arrays, some stars at a time; the wavelengths [n, P] of each, None where the file has none,
    and their unit.
    """
    if "source_id" not in found:
        raise SpectangleError(
            f"{path} has one row per star and no column 'source_id'; it has: {', '.join(table.names)}."
        )
    n_pixels = None  # as the first star has them
    for first, block in table.blocks(STARS):
        if first == 1:
            _refuse_words(path, block[found["flux"]], found["flux"])
        chunk, grids, unit = _raw_block(path, block, first, found, bad, grid, n_pixels)
        n_pixels = chunk.flux.shape[1]
        yield chunk, grids, unit


def _refuse_words(path: Path, flux: Any, name: str) -> None:
    if flux.dtype.kind in "SU" and not re.search(r"[\[(,]", str(flux[0])):
        raise SpectangleError(
            f"{path}: column '{name}' holds text ('{flux[0]}'); numbers or lists of numbers were expected."
        )


def _raw_block(
    path: Path, block: Any, first: int, found: Mapping[str, str], bad: BadRows, grid, n_pixels: int | None
) -> tuple[SpectraChunk, np.ndarray | None, Any]:
    ids = as_source_ids(block[found["source_id"]], f"{path}, column {found['source_id']}", first)
    rows, keep = np.arange(first, first + len(ids)), ids != NO_ID
    for row in rows[~keep]:
        bad.skip(path, int(row), "the star has no source_id")
    flux = _arrays(path, block[found["flux"]], "flux", rows, keep, bad, n_pixels)
    error = (
        _arrays(path, block[found["flux_error"]], "flux_error", rows, keep, bad, flux.shape[1])
        if "flux_error" in found
        else None
    )
    if flux.shape[1] < 2:
        raise SpectangleError(f"{path}: column '{found['flux']}' {ONE_PIXEL}")
    if "wavelength" not in found:
        wavelength = grid(flux.shape[1])
        check_range(wavelength, str(path), RVS_RANGE)
        return SpectraChunk(path, rows, ids, flux, error, wavelength).keep(keep), None, None
    column = block[found["wavelength"]]
    _refuse_air(path, column)
    grids = _arrays(path, column, "wavelength", rows, keep, bad, flux.shape[1]).astype(np.float64).round(5)
    return SpectraChunk(path, rows, ids, flux, error, grids[0]).keep(keep), grids[keep], column.unit


def _arrays(path, column, name: str, rows, keep, bad: BadRows, n_values: int | None = None) -> np.ndarray:
    """A column of arrays [n, P] float32, whether the file keeps them as arrays, ragged arrays or text."""
    if column.ndim == 2:
        return _floats(column)
    values = column.tolist()
    if values and isinstance(values[0], (str, bytes)):
        array, reasons = parse_lists(
            pa.array([v.decode() if isinstance(v, bytes) else v for v in values], pa.string()), n_values
        )
    else:
        n_values = n_values or len(np.atleast_1d(values[0]))
        array, reasons = np.full((len(values), n_values), np.nan, dtype=np.float32), {}
        for i, value in enumerate(values):
            value = _floats(np.ma.atleast_1d(np.ma.asarray(value if value is not None else [])))
            if len(value) == n_values:
                array[i] = value
            else:
                reasons[i] = f"the array has {len(value)} values and {n_values} were expected"
    for i, why in sorted(reasons.items()):
        if keep[i]:
            bad.skip(path, int(rows[i]), f"{name}: {why}")
        keep[i] = False
    return array


def _floats(column, dtype: Any = np.float32) -> np.ndarray:
    """Values as floats; masked ones become NaN."""
    with np.errstate(over="ignore"):  # fill values may be too large for a float32
        if isinstance(column, np.ma.MaskedArray):
            return np.ma.filled(column.astype(dtype), np.nan)
        return np.asarray(column, dtype=dtype)


def _refuse_air(path: Path, column: Any) -> None:
    said = f"{getattr(column, 'description', None) or ''} {getattr(column, 'meta', None) or ''}".lower()
    if re.search(r"\bair\b|;em\.wl\.air", said):
        raise SpectangleError(
            f"{path}: the wavelengths are described as '{said.strip()}'; vacuum was expected. Convert them first."
        )


def _id_outside(path: Path, table: Table, name: str) -> int:
    meta = {str(key).lower(): value for key, value in (table.meta or {}).items()}
    for key in (name.lower(), "source_id", "sourceid", "sourceid_"):
        if key in meta:
            return int(as_source_ids(np.atleast_1d(meta[key]), f"{path}, header {key}")[0])
    if digits := re.search(r"(?<!\d)\d{10,19}(?!\d)", path.name):
        return parse_id(digits[0], f"{path}, its name")
    raise SpectangleError(
        f"{path}: no source_id was found as a column, in the header or in the file name; rename the file to end "
        "in the id."
    )
