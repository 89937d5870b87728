"""A catalogue of labels in a FITS table: which columns a release has, as its data model names them, and how its flags
cut.

Shapes: n stars.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectangle.archives.labels.label_table import UNITS, LabelTable
from spectangle.archives.tables.columns import find_column
from spectangle.archives.tables.fits_columns import fits_column_names, read_fits_columns
from spectangle.archives.tables.missing import error_or_nan
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import NO_ID, as_source_ids, check_not_rounded

__all__ = ["Release", "read_catalogue"]


@dataclass(frozen=True)
class Release:
    """What a release of a catalogue calls its columns.

    Arguments:
        origin: Name of the catalogue in the survey.
        columns: {source_id, g_mag, snr, the labels, the flags: column}.
        error: Column of a label's error, with {} for the label's.
        flags: {flag: (name of the cut, bit; None: every value but 0 removes the star)}, in the order in which they cut.
        note: What a user should know; empty: nothing.
    """

    origin: str
    columns: Mapping[str, str]
    error: str
    flags: Mapping[str, tuple[str, int | None]]
    note: str = ""


def read_catalogue(
    path: str | Path,
    releases: Mapping[str, Release],
    release: str | None,
    columns: Mapping[str, str | None] | None,
    keys: str,
) -> LabelTable:
    """Read labels and flags of a catalogue.

    Arguments:
        path: The FITS file.
        releases: Those that are known, the first for files that fit none.
        release: Which it is; None: the one whose ids the file has.
        columns: {key of :class:`Release`'s columns: column} where the file has others; null: it has none.
        keys: Start of the keys of release and columns in the config, for sentences: ``labels.apogee_``.

    Raises:
        SpectangleError: The file is missing, truncated, lacks a column, or its ids are floats.
    """
    path, changed = Path(path), dict(columns or {})
    names = fits_column_names(path)
    known = _release(releases, release, names, keys)
    wanted = _wanted(known, changed, names, f"{keys}columns")
    labels = [name for name in UNITS if name in wanted]
    data = read_fits_columns(path, wanted, f"{keys}columns.{{}}=...")
    ids = as_source_ids(data["source_id"], f"{path}, column {wanted['source_id']}")
    check_not_rounded(ids, f"{path}, column {wanted['source_id']}")
    nothing = np.full(len(ids), np.nan, dtype=np.float32)
    return LabelTable(
        origin=known.origin,
        source_id=np.where(ids > 0, ids, NO_ID),
        labels={name: data[name].astype(np.float32) for name in labels},
        errors={name: error_or_nan(data[f"{name}_error"]) for name in labels if f"{name}_error" in data},
        g_mag=data["g_mag"].astype(np.float32) if "g_mag" in data else nothing,
        flags={name: _flagged(data[flag], bit) for flag, (name, bit) in known.flags.items() if flag in data},
        preference=np.nan_to_num(data["snr"].astype(np.float32), nan=-1) if "snr" in data else None,
        units={name: UNITS[name] for name in labels},
        notes=(known.note,) if known.note else (),
    )


def _release(releases: Mapping[str, Release], release: str | None, names: list[str], keys: str) -> Release:
    if release is not None:
        if release not in releases:
            raise SpectangleError(f"{keys}release={release} is not known; it can be {', '.join(releases)}.")
        return releases[release]
    fitting = (one for one in releases.values() if find_column(one.columns["source_id"], names))
    return next(fitting, next(iter(releases.values())))


def _wanted(known: Release, changed: Mapping[str, str | None], names: list[str], key: str) -> dict[str, str]:
    """{key: column} of a release with a user's changes; errors that the user did not name are read where they are."""
    errors = [f"{name}_error" for name in UNITS]
    if wrong := sorted(set(changed) - {*known.columns, *errors}):
        raise SpectangleError(f"{key} has the key '{wrong[0]}'; it can have {', '.join([*known.columns, *errors])}.")
    wanted = {name: column for name, column in {**known.columns, **changed}.items() if column is not None}
    labels = [name for name in UNITS if name in wanted]
    if "source_id" not in wanted or not labels:
        raise SpectangleError(
            f"{key} leaves no {'source_id' if labels else 'label'}; a catalogue needs ids and a label."
        )
    for name in labels:
        column = known.error.format(wanted[name])
        if f"{name}_error" not in changed and (name not in changed or find_column(column, names)):
            wanted[f"{name}_error"] = column
    return wanted


def _flagged(flags: np.ndarray, bit: int | None) -> np.ndarray:
    """Whether stars [n] are flagged; an unknown flag (NaN) is not 0, and has no bit."""
    unknown = np.isnan(flags) if flags.dtype.kind == "f" else np.zeros(len(flags), dtype=bool)
    known = np.where(unknown, flags.dtype.type(), flags).astype(np.int64)
    return unknown | (known != 0) if bit is None else (known >> bit) & 1 == 1
