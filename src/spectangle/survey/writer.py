"""Write a survey file in pieces.

Shapes: N stars, P pixels.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spectangle.errors import SpectangleError
from spectangle.runs.environment import command_line
from spectangle.survey.disk_file import DiskFile
from spectangle.survey.format import STAR_GROUPS, ContentHasher, check_names, locked, star_datasets
from spectangle.survey.given import as_column, as_flux, as_ids, as_label, as_wavelength
from spectangle.version import VERSION

__all__ = ["SurveyWriter"]


class SurveyWriter:
    """Write a survey file chunk by chunk, beside its final name; rename it when the block ends well.

    Arguments:
        path: Final file name.
        wavelength: Vacuum wavelengths [P] in nm, or an astropy Quantity.
        label_units: Unit of each label by name.
        origin: Where the stars come from, for instance ``Gaia DR3 x APOGEE DR17``.
        release: Data release or version.
        created_by: Command and version; default: this command line and the package version.

    Raises:
        SpectangleError: The disk is full, the folder cannot be written, a name has a slash, the wavelengths seem to be
            in another unit, or a chunk does not fit the format.
    """

    def __init__(
        self,
        path: str | Path,
        wavelength: Any,
        label_units: Mapping[str, str],
        origin: str,
        release: str,
        created_by: str | None = None,
    ):
        self.path = Path(path)
        self._part = self.path.with_name(self.path.name + ".part")
        self._wavelength = as_wavelength(wavelength, f"The survey {self.path.name}")
        self._units = dict(label_units)
        check_names(self._units, "label")
        self._attributes = {
            "origin": origin,
            "release": release,
            "created_by": created_by or f"{command_line()} (spectangle {VERSION})",
        }
        self._hasher = ContentHasher()
        self._ids: list[np.ndarray] = []  # kept: what was written may still be on its way to the disk
        self.n_stars = 0

    def __enter__(self) -> "SurveyWriter":
        with _disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._disk = DiskFile(self._part)
            try:
                self._begin()
                self._disk.check()
            except BaseException:
                self._drop()
                raise
        return self

    def append(
        self,
        source_id: Any,
        flux: Any,
        labels: Mapping[str, Any],
        flux_error: Any = None,
        label_errors: Mapping[str, Any] | None = None,
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Append n stars: source_id [n] int64, flux and flux_error [n, P], each label, error and column [n].

        Masked and fill values of flux and errors, and masked labels, are stored as NaN; labels with a unit (astropy's
        Quantity or Column) are converted to the survey's.

        Raises:
            SpectangleError: An array is of a wrong type, shape or unit, a name is not the survey's, or the disk is
                full.
        """
        ids = as_ids(source_id, "source_id")
        if set(labels) != set(self._units):
            raise SpectangleError(f"Labels {sorted(labels)} were appended to a survey of labels {sorted(self._units)}.")
        for what, names in (("label error", label_errors), ("column", columns)):
            check_names(names or (), what)
        arrays = {"flux": as_flux(flux, "flux"), "source_id": ids}
        if flux_error is not None:
            arrays["flux_error"] = as_flux(flux_error, "flux_error")
        arrays |= {
            f"labels/{name}": as_label(labels[name], unit, f"label {name}") for name, unit in self._units.items()
        }
        arrays |= {
            f"label_errors/{name}": as_label(v, self._units.get(name, ""), f"label error {name}", error=True)
            for name, v in (label_errors or {}).items()
        }
        arrays |= {f"columns/{name}": as_column(v, f"column {name}") for name, v in (columns or {}).items()}
        self._check_shapes(arrays)
        with _disk_errors(self.path):
            for name, values in arrays.items():
                self._append(name, values)
            self._disk.check()
        self._ids.append(ids)
        self.n_stars += len(ids)

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._drop()

    def _begin(self) -> None:
        self._file: Any = h5py.File(self._disk, "w")
        wavelength = self._file.create_dataset("wavelength", data=self._wavelength)
        wavelength.attrs.update(unit="nm", medium="vacuum")
        for group in STAR_GROUPS:
            self._file.create_group(group, track_order=True)  # labels keep the order that they were given in
        self._hasher.update("wavelength", self._wavelength)
        self._file.flush()

    def _finish(self) -> None:
        if self.n_stars == 0:
            raise SpectangleError(f"No star was written to {self.path}: a survey needs at least one.")
        values, counts = np.unique(np.concatenate(self._ids), return_counts=True)
        if (counts > 1).any():
            raise SpectangleError(f"source_id {values[counts > 1][0]} comes more than once; keep one row per star.")
        with _disk_errors(self.path):
            self._file.attrs.update(self._attributes, content_hash=self._hasher.hexdigest())
            self._file.close()
            self._disk.check()
            self._disk.close()
            self._part.replace(self.path)

    def _drop(self) -> None:
        """Leave nothing open and no part of a file."""
        with suppress(Exception):
            self._file.close()
        self._disk.close()
        self._part.unlink(missing_ok=True)

    def _check_shapes(self, arrays: Mapping[str, np.ndarray]) -> None:
        n = len(arrays["source_id"])
        for name, values in arrays.items():
            expected = (n, len(self._wavelength)) if name in ("flux", "flux_error") else (n,)
            if values.shape != expected:
                raise SpectangleError(f"{name} has shape {values.shape}; this chunk of {n} stars needs {expected}.")
            if self.n_stars and name not in self._file:
                raise SpectangleError(f"{name} appears in a later chunk only; every chunk must have the same arrays.")
        if self.n_stars:
            missing = {name for name, _ in star_datasets(self._file)} - set(arrays)
            if missing:
                raise SpectangleError(
                    f"A later chunk lacks {', '.join(sorted(missing))}; every chunk must have the same arrays."
                )

    def _append(self, name: str, values: np.ndarray) -> None:
        if name not in self._file:
            rows = min(max(len(values), 1), 256 if values.ndim == 2 else 65536)
            self._file.create_dataset(
                name,
                shape=(0, *values.shape[1:]),
                maxshape=(None, *values.shape[1:]),
                dtype=h5py.string_dtype() if values.dtype.kind == "O" else values.dtype,
                chunks=(rows, *values.shape[1:]),
            )
            if name.startswith("labels/"):
                self._file[name].attrs["unit"] = self._units[name.removeprefix("labels/")]
        dataset = self._file[name]
        dataset.resize(self.n_stars + len(values), axis=0)
        dataset[self.n_stars :] = values
        self._hasher.update(name, values)


class _disk_errors:
    """Turn the system's write errors into a sentence."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, (OSError, RuntimeError)):
            raise SpectangleError(
                locked(self.path, error)
                or f"{self.path} could not be written ({error}); nothing was left behind. Free some space or choose "
                "another folder."
            ) from error
