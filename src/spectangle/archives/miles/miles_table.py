"""The parameter table of the MILES library, `paramsMILES_v9.1.txt`, and the prepared copy's `labels.csv`.

Fixed columns: name, a mark of cluster stars, number of the spectrum (MILES), of the CaT library, spectral type, Teff
[K], log g [dex], [Fe/H] [dex], quality codes of the labels' sources (Cenarro et al. 2007, MNRAS 374, 664), other
libraries; '--' is missing.
"""

import csv
import io
import re
from collections.abc import Iterator

import numpy as np

from spectangle.archives.labels.label_table import LabelTable, unit_of_label
from spectangle.archives.labels.names import name_ids
from spectangle.errors import SpectangleError

__all__ = ["MilesTable", "parse_csv", "parse_table"]

LABELS = {"teff": "teff", "logg": "logg", "fe_h": "feh"}  # label: column
FIELDS = {  # where in a line
    "name": (0, 18),
    "cluster": (18, 22),
    "miles_id": (22, 29),
    "sptype": (35, 50),
    "teff": (50, 56),
    "logg": (56, 63),
    "feh": (63, 72),
    "refs": (72, 79),
}
MISPRINTS = {"022.": "0221"}  # HD044691A, the only number that the table lacks


class MilesTable:
    """Rows of the parameter table, each a dict of text by field.

    Arguments:
        rows: {name, miles_id, sptype, teff, logg, feh, refs} of each star.
        where: File, for sentences.

    Raises:
        SpectangleError: A number of a spectrum or a name comes twice.
    """

    def __init__(self, rows: list[dict[str, str]], where: str):
        self.where = where
        self.names = [row["name"] for row in rows]
        self.miles_id = [row["miles_id"] for row in rows]
        self.source_id = name_ids(self.names, where)
        self._rows = rows
        self.position = {number: i for i, number in enumerate(self.miles_id)}
        if len(self.position) < len(rows):
            twice = next(number for number in self.miles_id if self.miles_id.count(number) > 1)
            raise SpectangleError(f"{where}: spectrum {twice} comes twice; keep one row per star.")

    def labels(self, origin: str) -> LabelTable:
        """The labels of every star, NaN where the library has none."""
        columns = {name: np.array([row[name] for row in self._rows]) for name in ("name", "miles_id", "sptype", "refs")}
        return LabelTable(
            origin=origin,
            source_id=self.source_id,
            labels={
                label: np.array([_number(row[column]) for row in self._rows], dtype=np.float32)
                for label, column in LABELS.items()
            },
            errors={},
            g_mag=np.full(len(self._rows), np.nan, dtype=np.float32),
            units={label: unit_of_label(label) for label in LABELS},
            columns=columns,
        )


def parse_table(text: str, where: str) -> MilesTable:
    """Read `paramsMILES_v9.1.txt`.

    Raises:
        SpectangleError: It has no star, or a line that cannot be read.
    """
    rows = list(_lines(text, where))
    if not rows:
        raise SpectangleError(
            f"{where} has no star: it is not MILES' parameter table (paramsMILES_v9.1.txt was expected)."
        )
    return MilesTable(rows, where)


def _lines(text: str, where: str) -> Iterator[dict[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(("Name", " ", "#")):
            continue
        row = {field: line[start:end].strip() for field, (start, end) in FIELDS.items()}
        row["miles_id"] = MISPRINTS.get(row["miles_id"], row["miles_id"])
        wrong = [row[key] for key in LABELS.values() if np.isnan(_number(row[key])) and row[key].strip("-")]
        if not re.fullmatch(r"\d{4}", row["miles_id"]) or wrong:
            raise SpectangleError(
                f"{where}, line {number}: '{line.strip()[:60]}' is no row of MILES' parameter table (fixed "
                "columns, as published)."
            )
        yield row


def parse_csv(text: str, where: str) -> MilesTable:
    """Read `labels.csv` of the prepared copy.

    Raises:
        SpectangleError: A column is missing.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    if missing := {"name", "miles_id", "sptype", "refs", *LABELS.values()} - set(rows[0] if rows else ()):
        raise SpectangleError(
            f"{where} has no column '{sorted(missing)[0]}'; name, miles_id, sptype, teff, logg, feh, refs were "
            "expected."
        )
    return MilesTable(rows, where)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
