"""Join files of spectra with the rows of a table by the names of their stars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.archives.labels.label_table import LabelTable, as_text, with_gaps
from spectangle.archives.labels.names import name_id, name_key, refuse_duplicates
from spectangle.archives.labels.plain_labels import ids_of, labels_of, with_ids
from spectangle.archives.spectra.star_files import FITS_ENDINGS
from spectangle.archives.spectra.table_spectrum import TEXT_ENDINGS
from spectangle.archives.tables.columns import NoNumber, find_column, require_columns
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import NO_ID

__all__ = ["TableKeys", "exclude_names", "join_by_name"]

MATCH_COLUMNS = ("name", "star", "star_name", "object", "file", "filename", "spectrum", "source_id")


@dataclass(frozen=True)
class TableKeys:
    """What the columns of a table of stars mean.

    Arguments:
        match_column: Names of stars; None: the first of name, star, object, file, source_id that is there.
        id_column: Ids; where the table has none, they are made of the names.
        label_columns, units: {label: column}, {label: unit}, see :func:`label_table.labels_of`.
        keep_columns: Other columns that are kept.
    """

    match_column: str | None
    id_column: str
    label_columns: Mapping[str, str] | None
    units: Mapping[str, str] | None
    keep_columns: Sequence[str]


def join_by_name(
    table: Any, where: str, names: Mapping[Path, str], keys: TableKeys
) -> tuple[LabelTable, dict[Path, int], list[str]]:
    """Join {file: name of its star} with a table.

    Arguments:
        table: Labels, a row per star.
        where: Its file, for sentences.
        names: Names of stars by file.
        keys: What the columns of the table mean.

    Returns:
        Labels of the stars with files; {file: id} of all files, made of the name where the table has no row; a sentence
        on the rows without a file.

    Raises:
        SpectangleError: None joins, two files or two rows have one star, or ids collide.
    """
    column = _match_column(table, where, keys.match_column)
    cells = np.ma.asarray(table[column])
    row_keys = [_key(value) for value in as_text(with_gaps(np.ma.getdata(cells), np.ma.getmaskarray(cells)))]
    files = _by_key(names)
    rows = [row for row, key in enumerate(row_keys) if key in files]
    if not rows:
        example = next(iter(names.values()), "none")
        raise SpectangleError(
            f"No file belongs to a row of {where}: its column {column} has names such as '{table[column][0]}', "
            f"the files such as '{example}'. "
            "Say where the names are: archive.match_column, archive.name_keyword, archive.name_pattern."
        )
    stars = [names[files[row_keys[row]]] for row in rows]
    ids = _ids(table[rows], where, stars, keys.id_column)
    refuse_duplicates(stars, ids.tolist(), where)
    besides, kept = {column: "the name", keys.id_column: "the id"}, keys.keep_columns
    try:
        labels = labels_of(table[rows], where, ids, keys.label_columns, keys.units, besides=besides, keep_columns=kept)
    except NoNumber as error:
        raise error.in_row(rows[error.row]) from None
    labels = with_ids(labels, where, "labels", rows, stars)
    columns = {"name": np.array(stars)} | labels.columns
    in_table = {files[row_keys[row]]: int(number) for row, number in zip(rows, ids, strict=True)}
    numbers = {path: in_table[path] if path in in_table else name_id(name) for path, name in names.items()}
    lone = [str(value) for value, key in zip(table[column], row_keys, strict=True) if key not in files]
    alone = [f"{where}: {len(lone)} row(s) have no file, the first is {lone[0]}"] if lone else []
    return replace(labels, columns=columns), numbers, alone


def exclude_names(table: LabelTable, names: Sequence[str]) -> LabelTable:
    """Flag stars by name, for the funnel.

    Raises:
        SpectangleError: A name is not in the table.
    """
    if not names:
        return table
    keys = np.array([name_key(name) for name in table.columns["name"]])
    if unknown := [name for name in names if name_key(name) not in keys]:
        raise SpectangleError(f"archive.exclude names '{unknown[0]}', and {table.origin} has no star of that name.")
    return replace(table, flags=table.flags | {"excluded by name": np.isin(keys, [name_key(name) for name in names])})


def _match_column(table: Any, where: str, given: str | None) -> str:
    if given is not None:
        return require_columns({"match_column": given}, table.colnames, where, "archive.{}=...")["match_column"]
    found = next((column for name in MATCH_COLUMNS if (column := find_column(name, table.colnames))), None)
    if found is None:
        shown = ", ".join(table.colnames[:30])
        raise SpectangleError(
            f"{where} has no column of names ({', '.join(MATCH_COLUMNS)}); it has: {shown}. Name it: "
            "archive.match_column=..."
        )
    return found


def _key(value: str) -> str:
    """What is compared: the name, or the file's name without folder and ending."""
    text = value.strip()
    bare = text.lower().removesuffix(".gz")
    for ending in FITS_ENDINGS + TEXT_ENDINGS:
        if bare.endswith(ending):
            return name_key(Path(text[: len(bare) - len(ending)]).name)
    return name_key(text)


def _by_key(names: Mapping[Path, str]) -> dict[str, Path]:
    """{what is compared: file}; two files of one star are refused."""
    files: dict[str, Path] = {}
    for path, name in names.items():
        if (key := name_key(name)) in files:
            raise SpectangleError(
                f"{files[key]} and {path} are both of star '{name}'; one spectrum per star was expected. Keep one "
                "of them."
            )
        files[key] = path
    return files


def _ids(table: Any, where: str, stars: Sequence[str], id_column: str) -> np.ndarray:
    """The ids [n] of a table, or of the stars' names where it has none."""
    if find_column(id_column, table.colnames) is None:
        return np.array([name_id(name) for name in stars], dtype=np.int64)
    ids = ids_of(table, where, id_column, "archive")
    return np.array(
        [name_id(name) if number == NO_ID else number for name, number in zip(stars, ids, strict=True)], dtype=np.int64
    )
