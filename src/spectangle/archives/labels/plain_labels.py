"""The plain form of labels: any table that astropy reads (ECSV, CSV, VOTable, FITS) with source_id and label
columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.archives.labels.label_columns import LabelColumns, check_label_names, choose_labels, error_column
from spectangle.archives.labels.label_table import UNITS, LabelTable, as_text, unit_of_label, with_gaps
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.archives.tables.columns import find_column, numbers, require_columns
from spectangle.archives.tables.missing import error_or_nan, is_fill, is_missing, plausible, why_missing
from spectangle.archives.tables.table_file import read_table
from spectangle.errors import SpectangleError
from spectangle.survey.label_units import in_unit
from spectangle.survey.source_ids import NO_ID, as_source_ids, check_not_rounded

__all__ = ["ids_of", "labels_of", "read_label_table", "with_ids"]


def read_label_table(
    path: str | Path,
    bad: BadRows,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    id_column: str = "source_id",
    magnitude: str = "phot_g_mean_mag",
    origin: str | None = None,
    keys: str = "labels",
    keep_columns: Sequence[str] = (),
) -> LabelTable:
    """Read labels from a plain table.

    Arguments:
        path: The table.
        bad: Where to note rows without an id.
        columns: {label: column}; None takes every column that can be a label, see :mod:`label_columns`.
        units: Unit in which the survey keeps each label; default: the paper's, else the column's. A column in another
            one is converted.
        id_column: Column of the Gaia ids.
        magnitude: Column of G; may be missing.
        origin: Name of the table in the survey; default: its file name.
        keys: Where the config has columns, units and id_column, for sentences.
        keep_columns: Other columns that the survey keeps, such as the instrument.

    Raises:
        SpectangleError: A column is missing, or an id comes twice or as a float.
    """
    table = read_table(path, [id_column])
    ids = ids_of(table, path, id_column, keys)
    if nameless := np.flatnonzero(ids == NO_ID).tolist():
        bad.leave_out(f"{path}: {len(nameless)} row(s) have no {id_column}, the first is row {nameless[0] + 1}")
    _refuse_duplicates(path, ids)
    besides = {id_column: "the id"}
    labels = labels_of(table, path, ids, columns, units, magnitude, origin, keys, besides, keep_columns)
    return with_ids(labels, path, keys)


def ids_of(table: Any, path: str | Path, id_column: str, keys: str) -> np.ndarray:
    """The ids [n] of a table's rows, NO_ID where a row has none.

    Raises:
        SpectangleError: There is no such column, or it holds floats.
    """
    column = require_columns({"id_column": id_column}, table.colnames, str(path), f"{keys}.{{}}=...")["id_column"]
    ids = as_source_ids(table[column], f"{path}, column {column}")
    check_not_rounded(ids, f"{path}, column {column}")
    return np.where(ids < 0, NO_ID, ids)


def labels_of(
    table: Any,
    path: str | Path,
    ids: np.ndarray,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    magnitude: str = "phot_g_mean_mag",
    origin: str | None = None,
    keys: str = "labels",
    besides: Mapping[str, str] | None = None,
    keep_columns: Sequence[str] = (),
) -> LabelTable:
    """The labels of a table whose rows have ids [n].

    Arguments:
        besides: {column: what it is} of columns that are no labels.

    The other arguments are those of :func:`read_label_table`.
    """
    g = find_column(magnitude, table.colnames)
    kept = require_columns(
        {name: name for name in keep_columns}, table.colnames, str(path), f"{keys}.keep_columns=[...]"
    )
    besides = dict(besides or {}) | dict.fromkeys(kept.values(), "kept as it is") | ({g: "the magnitude"} if g else {})
    found = _label_columns(table, path, columns, keys, besides)
    unit = {name: _unit(name, table[column], units) for name, column in found.labels.items()}
    g_mag = np.full(len(ids), np.nan, dtype=np.float32) if g is None else _floats(path, table[g])
    return LabelTable(
        origin=origin or Path(path).stem,
        source_id=ids,
        labels={name: _in_unit(path, table[column], unit[name]) for name, column in found.labels.items()},
        errors={name: error_or_nan(_error(path, table, found, name, unit[name])) for name in found.errors},
        g_mag=np.where((g_mag > -5) & (g_mag < 30), g_mag, np.float32(np.nan)),
        units=unit,
        columns={name.replace("/", "_"): _filled(table[column]) for name, column in kept.items()},
        notes=() if columns else (found.sentence(str(path), f"{keys}.columns"),),
    )


def _filled(column: Any) -> np.ndarray:
    """Values [n] that a survey stores: numbers, or text."""
    values = np.ma.asarray(column)
    known = with_gaps(np.ma.getdata(values), np.ma.getmaskarray(values))
    return as_text(known) if known.dtype.kind == "S" and (known.view(np.uint8) > 127).any() else known


def with_ids(
    labels: LabelTable,
    path: str | Path,
    keys: str,
    rows: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> LabelTable:
    """The rows of a user's own table that have an id; a note says which values the sample takes for missing.

    Arguments:
        labels: The table.
        path: Its file, for sentences.
        keys: Where the config has the units, for sentences.
        rows: Where in the file its rows [n] are, from 0; None: they are all of the file.
        names: Names of its stars [n]; None: they are called by their ids.

    Raises:
        SpectangleError: No star can have any of the values that a label has.
    """
    notes = []
    for name, values in labels.labels.items():
        unit, missing = labels.units[name], is_missing(values, name, labels.units[name])
        given = np.flatnonzero(missing & ~np.isnan(values))
        real = np.flatnonzero(~is_fill(values))
        if not len(given):
            continue
        first = real[0] if len(real) and missing.all() else given[0]
        row = first + 1 if rows is None else rows[first] + 1
        star = labels.source_id[first] if names is None else names[first]
        if len(real) and missing.all():
            raise _implausible(f"{path}, row {row}, star {star}", name, values[real], unit, keys)
        notes.append(
            f"{path}: {len(given)} value(s) of {name} are taken for missing; in row {row} that of star {star} "
            f"{why_missing(float(values[first]), name, unit)}."
        )
    return replace(labels, notes=(*labels.notes, *notes)).keep(labels.source_id != NO_ID)


def _implausible(where: str, name: str, values: np.ndarray, unit: str, keys: str) -> SpectangleError:
    """Of a label all of whose values [n] would be taken for missing ones: most often their unit is another."""
    low, high = plausible(name, unit)
    other = "kK" if name == "teff" else "UNIT"
    return SpectangleError(
        f"{where}: {name} is {values[0]:g}, and all {len(values)} values of {name} would be taken for missing ones: "
        f"{low:g} to {high:g} {unit} were expected. If they are in another unit, say in which, and the survey keeps "
        f"it: {keys}.units='{{{name}: {other}}}'; else correct the values, or leave the label out."
    )


def _label_columns(
    table: Any, path: str | Path, columns: Mapping[str, str] | None, keys: str, besides: Mapping[str, str]
) -> LabelColumns:
    """Those that the user named, else all that can be labels."""
    if not columns:
        known = {column: what for name, what in besides.items() if (column := find_column(name, table.colnames))}
        found = choose_labels(table, known)
        if not found.labels:
            why = "; ".join(f"{column} ({reason})" for column, reason in found.left.items())
            raise SpectangleError(
                f"{path} has no label column; it has: {why}. Name them: {keys}.columns='{{teff: my_column}}'."
            )
        return found
    check_label_names(columns, f"{keys}.columns")
    named = require_columns(columns, table.colnames, str(path), f"{keys}.columns='{{{{{{}}: my_column}}}}'")
    return LabelColumns(
        named, {name: found for name, column in named.items() if (found := error_column(column, table.colnames))}
    )


def _unit(name: str, column: Any, units: Mapping[str, str] | None) -> str:
    return (units or {}).get(name) or UNITS.get(name) or unit_of_label(name) or str(column.unit or "")


def _in_unit(path: str | Path, column: Any, unit: str) -> np.ndarray:
    return in_unit(_floats(path, column), column.unit, unit, f"{path}, column {column.name}").astype(np.float32)


def _error(path: str | Path, table: Any, found: LabelColumns, name: str, unit: str) -> np.ndarray:
    """Errors in the label's unit; a column without a unit has the one of the label's column."""
    column = table[found.errors[name]]
    stated = column.unit or table[found.labels[name]].unit
    return in_unit(_floats(path, column), stated, unit, f"{path}, column {column.name}", error=True)


def _floats(path, column: Any) -> np.ndarray:
    if column.ndim > 1 or column.dtype.kind == "O":
        shape = f" of {column.shape[1]} values" if column.ndim > 1 else ""
        raise SpectangleError(
            f"{path}: column '{column.name}' holds arrays{shape}; one number for each star was expected. Write "
            "each to a column."
        )
    with np.errstate(over="ignore"):  # fill values may be too large for a float32
        return numbers(column, str(path)).astype(np.float32)


def _refuse_duplicates(path, ids: np.ndarray) -> None:
    rows = np.flatnonzero(ids != NO_ID)
    order = rows[np.argsort(ids[rows], kind="stable")]
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        first, second = sorted(order[twice[0] : twice[0] + 2] + 1)
        raise SpectangleError(
            f"{path}: source_id {ids[first - 1]} comes in rows {first} and {second}; keep one row per star."
        )
