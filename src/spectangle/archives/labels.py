"""A table of labels on its way from a catalogue to the sample.

Shapes: n stars. The four labels of the paper are teff [K], logg [dex], m_h = [M/H] [dex], alpha_fe = [alpha/Fe] [dex].
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

__all__ = ["UNITS", "LabelTable", "empty_of", "unit_of_label"]

UNITS = {"teff": "K", "logg": "dex", "m_h": "dex", "alpha_fe": "dex"}


@dataclass(frozen=True)
class LabelTable:
    """Labels of n stars.

    Arguments:
        origin: Catalogue and release, for instance ``APOGEE DR17``.
        source_id: Ids [n] int64; NO_ID where the catalogue has none.
        labels: {name: [n] float32}.
        errors: {name: [n] float32}, for some or all labels.
        g_mag: Gaia G magnitude [n] float32, NaN where unknown.
        flags: {name of a cut: stars [n] that it removes}, in the order in which they are applied.
        preference: Which row of a star to keep, the larger the better [n].
        units: Unit of each label.
        columns: Anything else per star that the survey keeps, such as names {name: [n], numbers or text}.
        notes: Sentences for the user: which columns were taken, what was left.
    """

    origin: str
    source_id: np.ndarray
    labels: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    g_mag: np.ndarray
    flags: dict[str, np.ndarray] = field(default_factory=dict)
    preference: np.ndarray | None = None
    units: dict[str, str] = field(default_factory=lambda: dict(UNITS))
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.source_id)

    def keep(self, mask: np.ndarray) -> "LabelTable":
        """The stars of a mask or an index array only."""
        parts = {
            name: {key: v[mask] for key, v in getattr(self, name).items()}
            for name in ("labels", "errors", "flags", "columns")
        }
        preference = None if self.preference is None else self.preference[mask]
        return replace(self, source_id=self.source_id[mask], g_mag=self.g_mag[mask], preference=preference, **parts)

    def only(self, names: Collection[str], why: str) -> "LabelTable":
        """The table with some of its labels, and a note on those that it lost."""
        lost = [name for name in self.labels if name not in names]
        parts = {
            part: {name: v for name, v in getattr(self, part).items() if name in names}
            for part in ("labels", "errors", "units")
        }
        return (
            replace(self, **parts, notes=(*self.notes, f"{self.origin}: left out {', '.join(lost)} ({why})."))
            if lost
            else self
        )


def empty_of(values: np.ndarray) -> Any:
    """What stands for no value in a column of this kind: text without letters, NaN, or 0."""
    return "" if values.dtype.kind in "USO" else np.nan if values.dtype.kind == "f" else 0


def unit_of_label(name: str) -> str:
    """The unit that a label of this name has: the paper's, dex for other abundances such as fe_h or mg_fe, else none
    known.
    """
    return UNITS.get(name) or ("dex" if name.endswith(("_h", "_fe")) else "")
