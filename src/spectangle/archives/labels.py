"""A table of labels on its way from a catalogue to the sample, and the two things that can be wrong with its values.

Shapes: n stars. The four labels of the paper are teff [K], logg [dex], m_h = [M/H] [dex], alpha_fe = [alpha/Fe] [dex].
"""

from dataclasses import dataclass, field, replace

import numpy as np

__all__ = ["UNITS", "LabelTable", "is_missing", "unit_of_label"]

UNITS = {"teff": "K", "logg": "dex", "m_h": "dex", "alpha_fe": "dex"}
SENTINEL = -9000.0  # catalogues write missing values as -9999, -9999.99 or NaN


@dataclass(frozen=True)
class LabelTable:
    """Labels of n stars.

    Arguments:
        origin: Catalogue and release, for instance ``APOGEE DR17``.
        source_id: Gaia ids [n] int64; 0 where the catalogue has none.
        labels: {name: [n] float32}.
        errors: {name: [n] float32}, for some or all labels.
        g_mag: Gaia G magnitude [n] float32, NaN where unknown.
        flags: {name of a cut: stars [n] that it removes}, in the order in which they are applied.
        preference: Which row of a star to keep, the larger the better [n].
        units: Unit of each label.
        columns: Anything else per star that the survey keeps, such as names {name: [n], numbers or text}.
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

    def __len__(self) -> int:
        return len(self.source_id)

    def keep(self, mask: np.ndarray) -> "LabelTable":
        """The stars of a mask or an index array only."""
        parts = {name: {key: v[mask] for key, v in getattr(self, name).items()} for name in ("labels", "errors", "flags", "columns")}
        preference = None if self.preference is None else self.preference[mask]
        return replace(self, source_id=self.source_id[mask], g_mag=self.g_mag[mask], preference=preference, **parts)


def unit_of_label(name: str) -> str:
    """The unit that a label of this name has: the paper's, dex for other abundances such as fe_h or mg_fe, else none known."""
    return UNITS.get(name) or ("dex" if name.endswith(("_h", "_fe")) else "")


def is_missing(values: np.ndarray) -> np.ndarray:
    """Whether values [n] are NaN, infinite or a sentinel such as -9999."""
    with np.errstate(invalid="ignore"):
        return ~np.isfinite(values) | (values <= SENTINEL)
