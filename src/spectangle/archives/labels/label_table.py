"""A table of labels on its way from a catalogue to the sample.

Shapes: n stars. The four labels of the paper are teff [K], logg [dex], m_h = [M/H] [dex], alpha_fe = [alpha/Fe] [dex].
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

__all__ = ["UNITS", "LabelTable", "as_text", "unit_of_label", "with_gaps"]

UNITS = {"teff": "K", "logg": "dex", "m_h": "dex", "alpha_fe": "dex"}
EXACT = 2**53  # integers up to here are floats as well


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
        units: {label: unit}; default: K and dex where the name says so, else none, see :func:`unit_of_label`.
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
    units: dict[str, str] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "units", {name: self.units.get(name, unit_of_label(name)) for name in self.labels})

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


def with_gaps(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Values [n] of any kind where those of a mask [n] are unknown: empty text, or NaN, for which integers become
    floats.

    What has no unknown value stays as it is. Truth values, and integers beyond 2^53, become text.
    """
    if not missing.any():
        return values
    if values.dtype.kind == "b" or (values.dtype.kind in "iu" and (np.abs(values[~missing] / EXACT) > 1).any()):
        values = values.astype(str)
    if values.dtype.kind in "USO":
        return np.where(missing, "" if values.dtype.kind == "O" else values.dtype.type(), values)
    return np.where(missing, values.dtype.type(np.nan) if values.dtype.kind == "f" else np.nan, values)


def as_text(values: np.ndarray) -> np.ndarray:
    """Values [n] as text; bytes are UTF-8, or Latin-1 where they cannot be."""
    values = np.asarray(values)
    if values.dtype.kind != "S":
        return values.astype(str)
    try:
        return np.char.decode(values, "utf-8")
    except UnicodeDecodeError:
        return np.char.decode(values, "latin-1")


def unit_of_label(name: str) -> str:
    """The unit that a label of this name has: the paper's, dex for other abundances such as fe_h or mg_fe, else none
    known.
    """
    return UNITS.get(name) or ("dex" if name.endswith(("_h", "_fe")) else "")
