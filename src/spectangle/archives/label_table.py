"""The plain form of labels: any table that astropy reads (ECSV, CSV, VOTable, FITS) with source_id and label columns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from spectangle.archives.columns import find_column, require_columns
from spectangle.archives.labels import UNITS, LabelTable, is_missing, unit_of_label
from spectangle.archives.rows import BadRows
from spectangle.archives.source_ids import as_source_ids, check_not_rounded
from spectangle.errors import SpectangleError

__all__ = ["drop_bad_labels", "labels_of", "read_label_table", "read_table"]


def read_table(path: str | Path) -> Any:
    """Read any table; text columns that astropy would turn into floats are not (ids stay integers).

    Raises:
        SpectangleError: The file is missing or astropy cannot read it.
    """
    path = Path(path)
    if not path.is_file():
        raise SpectangleError(f"There is no file {path}; check the path of the table.")
    is_csv = path.name.removesuffix(".gz").endswith(".csv")
    try:
        return Table.read(path, format="ascii.csv", comment="#") if is_csv else Table.read(path)
    except Exception as error:  # astropy raises many kinds
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpectangleError(f"{path} cannot be read as a table ({said}); give it as ECSV, CSV, VOTable or FITS.") from None


def read_label_table(
    path: str | Path,
    bad: BadRows,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    id_column: str = "source_id",
    magnitude: str = "phot_g_mean_mag",
    origin: str | None = None,
) -> LabelTable:
    """Read labels from a plain table.

    Arguments:
        path: The table.
        bad: Where to count rows whose labels are NaN or -9999.
        columns: {label: column}; None takes those of teff, logg, m_h, alpha_fe that are there.
        units: Unit of each label; default: the paper's, else the column's.
        id_column: Column of the Gaia ids.
        magnitude: Column of G; may be missing.
        origin: Name of the table in the survey; default: its file name.

    Raises:
        SpectangleError: A column is missing, an id comes twice or as a float, or there are too many bad rows.
    """
    table = read_table(path)
    column = require_columns({"source_id": id_column}, table.colnames, str(path))["source_id"]
    ids = as_source_ids(table[column], f"{path}, column {column}")
    check_not_rounded(ids, f"{path}, column {column}")
    _refuse_duplicates(path, ids)
    return drop_bad_labels(labels_of(table, path, ids, columns, units, magnitude, origin), path, bad)


def labels_of(
    table: Any,
    path: str | Path,
    ids: np.ndarray,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    magnitude: str = "phot_g_mean_mag",
    origin: str | None = None,
) -> LabelTable:
    """The labels of a table whose rows have ids [n]; the other arguments are those of :func:`read_label_table`."""
    columns = dict(columns or {name: name for name in UNITS if find_column(name, table.colnames)})
    if not columns:
        raise SpectangleError(f"{path} has no label column; it has: {', '.join(table.colnames)}. Name them: labels.columns='{{teff: my_column}}'.")
    found = require_columns(columns, table.colnames, str(path))
    g = find_column(magnitude, table.colnames)
    errors = {name: column for name in columns if (column := find_column(f"{columns[name]}_error", table.colnames))}
    return LabelTable(
        origin=origin or Path(path).stem,
        source_id=ids,
        labels={name: _floats(path, table[found[name]]) for name in columns},
        errors={name: _floats(path, table[column]) for name, column in errors.items()},
        g_mag=_floats(path, table[g]) if g else np.full(len(ids), np.nan, dtype=np.float32),
        units={name: (units or {}).get(name) or UNITS.get(name) or str(table[found[name]].unit or unit_of_label(name)) for name in columns},
    )


def drop_bad_labels(labels: LabelTable, path: str | Path, bad: BadRows) -> LabelTable:
    """Count and drop the rows of a user's own table that lack a label (catalogues lose them in the funnel instead)."""
    keep = np.ones(len(labels), dtype=bool)
    for name, values in labels.labels.items():
        for i in np.flatnonzero(is_missing(values) & keep):
            bad.skip(path, int(i) + 1, f"label {name} of star {labels.source_id[i]} is {values[i]:g}, which stands for a missing value")
            keep[i] = False
    return labels.keep(keep)


def _floats(path, column: Any) -> np.ndarray:
    try:
        return np.ma.filled(np.ma.asarray(column).astype(np.float32), np.nan)
    except (TypeError, ValueError):
        raise SpectangleError(f"{path}: column '{column.name}' holds text ('{column[0]}'); numbers were expected.") from None


def _refuse_duplicates(path, ids: np.ndarray) -> None:
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(twice):
        first, second = sorted(order[twice[0] : twice[0] + 2] + 1)
        raise SpectangleError(f"{path}: source_id {ids[first - 1]} comes in rows {first} and {second}; keep one row per star.")
