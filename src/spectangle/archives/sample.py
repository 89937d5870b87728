"""The sample of section 3.1 of the paper: quality cuts, each with the number of stars that it removed.

Manteiga et al. 2025, A&A 694, A326, section 3.1: 8 <= G <= 14, no STAR_BAD or FE_H_FLAG in APOGEE, flag_sp = flag_fe_h
= 0 in GALAH, errors of at most 200 K, 0.5, 0.3 and 0.2 dex; 54,422 stars from APOGEE DR17, 9,883 from GALAH DR3, 64,305
in all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from spectangle.archives.labels.label_table import UNITS, LabelTable
from spectangle.archives.tables.missing import is_missing
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import NO_ID

__all__ = ["PAPER", "Cuts", "Funnel", "apply_cuts"]

PAPER = {"APOGEE DR17": 54_422, "GALAH DR3": 9_883, "total": 64_305}


@dataclass(frozen=True)
class Cuts:
    """What a star must fulfil.

    Arguments:
        g_min, g_max: Range of the Gaia G magnitude, both ends included; None: no cut.
        max_errors: Largest label error allowed, {label: value}; infinite: any, also an unknown one.
        quality_flags: Whether the catalogues' own flags remove stars.
        max_masked: Largest fraction of masked survey pixels.
        min_snr: Smallest S/N of the spectrum (median flux / flux_error of its pixels); None: no cut.
        label_ranges: Ranges that labels must lie within, ends excluded, {label: [low, high]}; None: no cut. A star
            without the label passes.
        require: Labels that a star must have with a good error: names, ``all``, or ``paper`` for those of the paper's
            four that a table has. Another that a star lacks, or has with too large an error, is missing in the survey.
        unlabelled: Whether spectra of stars that no catalogue names, or that have no label there, are kept.
    """

    g_min: float | None = 8.0
    g_max: float | None = 14.0
    max_errors: dict[str, float] = field(
        default_factory=lambda: {"teff": 200.0, "logg": 0.5, "m_h": 0.3, "alpha_fe": 0.2}
    )
    quality_flags: bool = True
    max_masked: float = 0.1
    min_snr: float | None = None
    label_ranges: Mapping[str, Sequence[float] | None] | None = None
    require: Sequence[str] | str = "all"
    unlabelled: bool = False

    def __post_init__(self):
        if self.g_min is not None and self.g_max is not None and self.g_min > self.g_max:
            raise SpectangleError(f"cuts.g_min={self.g_min} is above cuts.g_max={self.g_max}; no star can pass.")
        if not 0 <= self.max_masked < 1:
            raise SpectangleError(f"cuts.max_masked={self.max_masked} must be a fraction from 0 to below 1.")
        for name, limits in self.ranges.items():
            if len(limits) != 2 or not limits[0] < limits[1]:
                raise SpectangleError(
                    f"cuts.label_ranges.{name}={list(limits)} must be two increasing numbers, for instance [4000, "
                    "7000]."
                )

    @property
    def ranges(self) -> dict[str, Sequence[float]]:
        """The label ranges that are given."""
        return {name: limits for name, limits in (self.label_ranges or {}).items() if limits is not None}

    def required(self, table: LabelTable) -> list[str]:
        """Labels that a star of a table must have."""
        if self.require == "all":
            return list(table.labels)
        if self.require == "paper":
            return [name for name in UNITS if name in table.labels]
        names = [self.require] if isinstance(self.require, str) else list(self.require or ())
        if unknown := [name for name in names if name not in table.labels]:
            raise SpectangleError(
                f"cuts.require names '{unknown[0]}'; {table.origin} has the labels {', '.join(table.labels)}. Name "
                "some of them, or all."
            )
        return names


@dataclass
class Funnel:
    """How many stars are left after each step, and the paper's number where it gives one."""

    steps: list[dict] = field(default_factory=list)

    def add(self, part: str, step: str, left: int, paper: int | None = None) -> None:
        """Note that `left` stars of a part (a catalogue, or the sample) are left after a step."""
        before = next((s["left"] for s in reversed(self.steps) if s["part"] == part), left)
        self.steps.append(
            {"part": part, "step": step, "left": int(left), "removed": max(0, int(before - left)), "paper": paper}
        )

    @property
    def has_paper(self) -> bool:
        """Whether the paper gives a number of a step: the sample is made as its own."""
        return any(step["paper"] for step in self.steps)

    def left(self, part: str) -> int:
        """Stars left in a part."""
        return next(s["left"] for s in reversed(self.steps) if s["part"] == part)


def apply_cuts(table: LabelTable, cuts: Cuts, funnel: Funnel) -> LabelTable:
    """Apply the cuts to a catalogue, one after the other; each adds a line to the funnel. Returns unique stars."""
    funnel.add(table.origin, "rows", len(table))
    table = _cut(table, table.source_id > NO_ID, funnel, "has a source_id")
    if cuts.quality_flags:
        for name in list(table.flags):
            table = _cut(table, ~table.flags[name], funnel, f"not {name}")
    table, required = _with_gaps(table), cuts.required(table)
    for name in required if len(required) < len(table.labels) else ():
        table = _cut(table, np.isfinite(table.labels[name]), funnel, f"{name} measured")
    if len(required) == len(table.labels):
        table = _cut(table, np.asarray(_labelled(table).all(axis=1)), funnel, "every label measured")
    table = _range_cuts(table, cuts, funnel)
    table = _magnitude_cut(table, cuts, funnel)
    for name, limit in cuts.max_errors.items():
        if name in table.errors:
            table = _error_cut(table, name, limit, name in required, funnel)
    if not required and not cuts.unlabelled:
        table = _cut(table, np.asarray(_labelled(table).any(axis=1)), funnel, "a label measured")
    return _cut(table, _best_rows(table), funnel, "one row per star")


def _with_gaps(table: LabelTable) -> LabelTable:
    """The table with NaN for what stands for a missing label."""
    labels = {
        name: np.where(is_missing(values, name, table.units.get(name)), np.float32(np.nan), values)
        for name, values in table.labels.items()
    }
    return replace(table, labels=labels)


def _labelled(table: LabelTable) -> np.ndarray:
    """Which labels [n, K] the stars have."""
    return np.isfinite(np.column_stack(list(table.labels.values())))


def _error_cut(table: LabelTable, name: str, limit: float, required: bool, funnel: Funnel) -> LabelTable:
    """Leave out stars whose error of a label is too large or unknown, or the label where it is not required. An
    infinite limit leaves out none.
    """
    if np.isinf(limit):
        return table
    with np.errstate(invalid="ignore"):
        good = (table.errors[name] <= limit) & ~is_missing(table.errors[name])
    if required:
        unknown = int(is_missing(table.errors[name]).sum())
        why = f"; cut: larger, or unknown ({unknown:,})" if unknown else ""
        return _cut(table, good, funnel, f"{name} error <= {limit:g}{why}")
    lost = int((~good & np.isfinite(table.labels[name])).sum())
    label = np.where(good, table.labels[name], np.float32(np.nan))
    funnel.add(table.origin, f"{name} error <= {limit:g}, or without it ({lost:,})", len(table))
    return replace(table, labels=table.labels | {name: label})


def _cut(table: LabelTable, keep: np.ndarray, funnel: Funnel, step: str) -> LabelTable:
    table = table.keep(keep)
    funnel.add(table.origin, step, len(table))
    return table


def _range_cuts(table: LabelTable, cuts: Cuts, funnel: Funnel) -> LabelTable:
    for name, (low, high) in cuts.ranges.items():
        if name not in table.labels:
            raise SpectangleError(
                f"cuts.label_ranges names '{name}'; {table.origin} has the labels {', '.join(table.labels)}."
            )
        inside = (table.labels[name] > low) & (table.labels[name] < high)
        table = _cut(table, inside | np.isnan(table.labels[name]), funnel, f"{low:g} < {name} < {high:g}")
    return table


def _magnitude_cut(table: LabelTable, cuts: Cuts, funnel: Funnel) -> LabelTable:
    if (cuts.g_min is None and cuts.g_max is None) or not len(table):
        return table
    if np.isnan(table.g_mag).all():
        raise SpectangleError(
            f"{table.origin} has no G magnitudes, so {cuts.g_min} <= G <= {cuts.g_max} cannot be checked; "
            "give them as a column phot_g_mean_mag, or set cuts.g_min=null cuts.g_max=null."
        )
    low, high = -np.inf if cuts.g_min is None else cuts.g_min, np.inf if cuts.g_max is None else cuts.g_max
    with np.errstate(invalid="ignore"):
        return _cut(table, (table.g_mag >= low) & (table.g_mag <= high), funnel, f"{low:g} <= G <= {high:g}")


def _best_rows(table: LabelTable) -> np.ndarray:
    """Mask [n] of one row per star, the one with the largest preference."""
    preference = np.zeros(len(table)) if table.preference is None else table.preference
    order = np.lexsort((np.arange(len(table)), -preference, table.source_id))
    first = np.ones(len(table), dtype=bool)
    first[1:] = np.diff(table.source_id[order]) != 0
    mask = np.zeros(len(table), dtype=bool)
    mask[order[first]] = True
    return mask
