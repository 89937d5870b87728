"""Join catalogues by Gaia source_id: the first in the list wins, and what the overlap says about them is reported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from spectangle.archives.labels.label_table import LabelTable, with_gaps
from spectangle.archives.sample import Funnel
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import NO_ID, positions_in

__all__ = ["UNLABELLED", "Catalogue", "Overlap", "join_catalogues"]

UNLABELLED = "no labels"  # the origin of labels of a star that has none


@dataclass(frozen=True)
class Catalogue:
    """The labels of m stars, sorted by source_id, each star once.

    Arguments:
        source_id: Ids [m] int64, increasing.
        labels, errors: {name: [m] float32}; errors are NaN where a catalogue has none.
        g_mag: G [m] float32.
        origin: Index [m] into `origins`.
        origins: Names of the catalogues.
        units: Unit of each label.
        columns: Anything else per star {name: [m]}.
    """

    source_id: np.ndarray
    labels: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    g_mag: np.ndarray
    origin: np.ndarray
    origins: tuple[str, ...]
    units: dict[str, str]
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def with_unlabelled(self, source_id: np.ndarray, names: Mapping[int, str]) -> "Catalogue":
        """The catalogue, and rows without labels for other stars [n], some of which have names by id."""
        new = source_id[source_id != NO_ID]
        if not len(new):
            return self
        ids = np.concatenate([self.source_id, new])
        order = np.argsort(ids)

        def longer(values: np.ndarray) -> np.ndarray:
            return _stacked([values, None], [len(values), len(new)])[order]

        parts = {
            name: {key: longer(values) for key, values in getattr(self, name).items()}
            for name in ("labels", "errors", "columns")
        }
        if "name" in self.columns:
            others = [names.get(number, "") for number in new.tolist()]
            parts["columns"]["name"] = np.concatenate([self.columns["name"].astype(str), others])[order]
        origin = np.concatenate([self.origin, np.full(len(new), len(self.origins))])[order]
        origins = (*self.origins, UNLABELLED)
        return replace(self, source_id=ids[order], g_mag=longer(self.g_mag), origin=origin, origins=origins, **parts)


@dataclass(frozen=True)
class Overlap:
    """Stars in two catalogues: mean and standard deviation of (first - second) of each label."""

    first: str
    second: str
    n_stars: int
    mean: dict[str, float]
    sigma: dict[str, float]


def join_catalogues(tables: Sequence[LabelTable], funnel: Funnel) -> tuple[Catalogue, list[Overlap]]:
    """Join tables of unique stars; of a star in several, the first table in the list is kept.

    Raises:
        SpectangleError: There is no table, their labels differ, or no star is left.
    """
    if not tables:
        raise SpectangleError(
            "No labels were given; name a catalogue: labels.apogee=allStar.fits, labels.galah=..., or "
            "labels.table=stars.ecsv."
        )
    if any(set(table.labels) != set(tables[0].labels) for table in tables):
        sets = "; ".join(f"{table.origin}: {', '.join(table.labels)}" for table in tables)
        raise SpectangleError(f"The catalogues have different labels ({sets}); they must have the same.")
    overlaps = [_compare(a, b) for i, a in enumerate(tables) for b in tables[i + 1 :]]
    kept, seen = [], np.zeros(0, dtype=np.int64)
    for table in tables:
        new = positions_in(table.source_id, seen) < 0
        if table is not tables[0]:
            funnel.add(table.origin, "not in a catalogue named before", int(new.sum()))
        kept.append(table.keep(new))
        seen = np.sort(np.concatenate([seen, kept[-1].source_id]))
    if not len(seen):
        raise SpectangleError(
            "No star is left after the cuts on the labels; the funnel above shows which one removed them."
        )
    funnel.add("sample", "labelled stars", len(seen))
    return _stack(kept), [overlap for overlap in overlaps if overlap.n_stars]


def _compare(first: LabelTable, second: LabelTable) -> Overlap:
    shared, i, j = np.intersect1d(first.source_id, second.source_id, assume_unique=True, return_indices=True)
    difference = {name: first.labels[name][i].astype(np.float64) - second.labels[name][j] for name in first.labels}
    mean = {name: float(d.mean()) if len(d) else np.nan for name, d in difference.items()}
    sigma = {name: float(d.std()) if len(d) else np.nan for name, d in difference.items()}
    return Overlap(first.origin, second.origin, len(shared), mean, sigma)


def _stack(tables: Sequence[LabelTable]) -> Catalogue:
    ids = np.concatenate([table.source_id for table in tables])
    order = np.argsort(ids)
    with_errors = [name for name in tables[0].labels if any(name in table.errors for table in tables)]

    def joined(values):
        return np.concatenate(values)[order].astype(np.float32)

    return Catalogue(
        source_id=ids[order],
        labels={name: joined([t.labels[name] for t in tables]) for name in tables[0].labels},
        errors={name: joined([t.errors.get(name, np.full(len(t), np.nan)) for t in tables]) for name in with_errors},
        g_mag=joined([t.g_mag for t in tables]),
        origin=np.concatenate([np.full(len(t), i) for i, t in enumerate(tables)])[order],
        origins=tuple(t.origin for t in tables),
        units=tables[0].units,
        columns={
            name: _stacked([t.columns.get(name) for t in tables], [len(t) for t in tables])[order]
            for name in dict.fromkeys(n for t in tables for n in t.columns)
        },
    )


def _stacked(columns: Sequence[np.ndarray | None], lengths: Sequence[int]) -> np.ndarray:
    """A column of several tables, one after the other; unknown for the stars of a table that has none."""
    kind = np.concatenate([column[:0] for column in columns if column is not None]).dtype
    parts = [np.zeros(n, kind) if column is None else column for column, n in zip(columns, lengths, strict=True)]
    return with_gaps(np.concatenate(parts), np.repeat([column is None for column in columns], lengths))
