"""GANDALF's own format: X.npy, params.npy, ids.npy, axis_labels.npy in one folder (the authors' SampleDataLoader).

X [N, P] spectra, params [N, K] labels, ids [N] identifiers of any kind, axis_labels [P] wavelengths.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spectangle.archives.labels.label_columns import check_label_names
from spectangle.archives.labels.label_table import LabelTable, unit_of_label
from spectangle.archives.labels.plain_labels import with_ids
from spectangle.archives.plain import array_chunks, load_array
from spectangle.archives.spectra.air import in_vacuum
from spectangle.archives.spectra.chunk import SpectraChunk
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import as_source_ids
from spectangle.survey.wavelengths import check_range, nanometres

__all__ = ["Gandalf"]


@dataclass(frozen=True)
class Gandalf:
    """A folder of GANDALF's four arrays.

    Arguments:
        folder: Where X.npy, params.npy, ids.npy and axis_labels.npy are.
        label_names: Names of the columns of params.npy.
        wavelength_unit: Unit of axis_labels.npy (their APOGEE sample: Angstrom).
        medium: ``vacuum``, or ``air``, which is converted.
        units: {label: unit} of labels other than the paper's.
        release: Kept in the survey.
    """

    folder: str
    label_names: list[str] = field(default_factory=lambda: ["teff", "logg", "m_h", "alpha_fe"])
    wavelength_unit: str = "nm"
    medium: str = "vacuum"
    units: dict[str, str] | None = None
    release: str = "unknown"

    @property
    def origin(self) -> str:
        return f"GANDALF {Path(self.folder).name}"

    @property
    def label_keys(self) -> dict[str, str]:
        """What is written instead of options of ``labels``."""
        return {"columns": "archive.label_names=[...]", "units": "archive.units=..."}

    def work(self) -> list[list[Path]]:
        """The one array."""
        return [[Path(self.folder) / "X.npy"]]

    def read(self, path: Path, bad: BadRows, wanted: np.ndarray | None = None) -> Iterator[SpectraChunk]:
        """Yield the wanted stars in chunks; X.npy is memory-mapped."""
        flux, ids = load_array(path, 2), self._ids()
        axis = Path(self.folder) / "axis_labels.npy"
        wavelength = nanometres(self._numbers(axis), self.wavelength_unit, str(axis))
        check_range(wavelength, str(axis), key="archive.wavelength_unit")
        wavelength = in_vacuum(wavelength, self.medium, str(axis), "archive.medium")
        if flux.shape != (len(ids), len(wavelength)):
            said = f"ids.npy has {len(ids)} stars and axis_labels.npy {len(wavelength)} pixels"
            raise SpectangleError(f"{path} has shape {flux.shape}; {said}. They must match.")
        yield from array_chunks(path, ids, flux, None, wavelength, bad, wanted)

    def labels(self, bad: BadRows) -> LabelTable:
        """The labels of params.npy."""
        check_label_names(self.label_names, "archive.label_names")
        path = Path(self.folder) / "params.npy"
        params, ids = load_array(path, 2), self._ids()
        if params.shape != (len(ids), len(self.label_names)):
            names = ", ".join(self.label_names)
            raise SpectangleError(
                f"{path} has shape {params.shape}; {len(ids)} stars and {len(self.label_names)} labels ({names}) "
                "were expected."
            )
        if len(np.unique(ids)) < len(ids):
            values, counts = np.unique(ids, return_counts=True)
            raise SpectangleError(
                f"{self.folder}/ids.npy: id {values[counts > 1][0]} comes more than once; keep one row per star."
            )
        table = LabelTable(
            origin=self.origin,
            source_id=ids,
            labels={name: np.asarray(params[:, i], dtype=np.float32) for i, name in enumerate(self.label_names)},
            errors={},
            g_mag=np.full(len(ids), np.nan, dtype=np.float32),
            units={name: (self.units or {}).get(name) or unit_of_label(name) for name in self.label_names},
        )
        return with_ids(table, path, "archive")

    def _ids(self) -> np.ndarray:
        """Ids [N] int64; names that are no integers, such as APOGEE's 2M..., are numbered from 1 in the file's
        order.
        """
        ids = load_array(Path(self.folder) / "ids.npy", 1)
        if ids.dtype.kind in "US" and not all(
            str(v.decode() if isinstance(v, bytes) else v).isdigit() for v in ids.tolist()
        ):
            return np.arange(1, len(ids) + 1)
        return as_source_ids(ids, f"{self.folder}/ids.npy")

    def _numbers(self, path: Path) -> np.ndarray:
        try:
            return np.asarray(load_array(path, 1)).astype(np.float64)
        except ValueError:
            raise SpectangleError(
                f"{path} holds no wavelengths (its first value is '{np.load(path)[0]}'); numbers were expected."
            ) from None
