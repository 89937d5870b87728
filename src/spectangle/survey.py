"""The survey file: spectra and labels of a set of stars in one HDF5 file, read and written in pieces.

Shapes: N stars, P pixels.

    flux            [N, P] float32      normalised flux; NaN = masked pixel
    flux_error      [N, P] float32      optional
    wavelength      [P]    float64      attributes unit = nm, medium = vacuum
    source_id       [N]    int64        never a float: Gaia ids need 63 bits
    labels/<name>   [N]    float32      attribute unit
    label_errors/<name>, columns/<name> optional, one value per star

File attributes: origin, release, created_by, content_hash.
"""

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spectangle import __version__
from spectangle.errors import SpectangleError

__all__ = ["Survey", "SurveyWriter", "locked"]

STAR_GROUPS = ("labels", "label_errors", "columns")


class Survey:
    """Open a survey file for reading and check that it keeps the format.

    Arguments:
        path: The HDF5 file.
        verify: Also read every value and compare it with ``content_hash``.

    Raises:
        SpectangleError: The file is missing, truncated, or breaks the format; the sentence says how to mend it.
    """

    def __init__(self, path: str | Path, verify: bool = False):
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            _validate(self.path, self._file)
            self.wavelength = self._file["wavelength"][:]
            self.labels = tuple(self._file["labels"])
            self.columns = tuple(self._file.get("columns", ()))
            self.n_stars, self.n_pixels = self._file["flux"].shape
            self.attributes = {key: str(value) for key, value in self._file.attrs.items()}
            if verify:
                self._verify()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Survey":
        return self

    def __exit__(self, *exception) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self.n_stars

    @property
    def content_hash(self) -> str:
        """SHA-256 of the content, independent of how the file was written."""
        return self.attributes["content_hash"]

    @property
    def has_flux_error(self) -> bool:
        return "flux_error" in self._file

    @property
    def source_id(self) -> np.ndarray:
        """Identifiers [N] int64."""
        return self._file["source_id"][:]

    def unit(self, label: str) -> str:
        """Unit of a label, for instance K or dex."""
        return str(self._dataset("labels", label).attrs["unit"])

    def label(self, name: str) -> np.ndarray:
        """Values of one label [N] float32, in the unit of :meth:`unit`."""
        return self._dataset("labels", name)[:]

    def label_error(self, name: str) -> np.ndarray | None:
        """Catalogue errors of one label [N], or None where the survey has none."""
        group = self._file.get("label_errors", {})
        return group[name][:] if name in group else None

    def column(self, name: str) -> np.ndarray:
        """Any other value per star [N]."""
        return self._dataset("columns", name)[:]

    def flux(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Flux of stars start to stop [n, P] float32."""
        return self._file["flux"][start:stop]

    def flux_error(self, start: int = 0, stop: int | None = None) -> np.ndarray | None:
        """Flux errors of stars start to stop [n, P] float32, or None where the survey has none."""
        return self._file["flux_error"][start:stop] if self.has_flux_error else None

    def chunks(self, size: int = 4096) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) pairs that cover all stars."""
        for start in range(0, self.n_stars, size):
            yield start, min(start + size, self.n_stars)

    def _dataset(self, group: str, name: str) -> Any:
        if name not in self._file.get(group, {}):
            have = ", ".join(self._file.get(group, ())) or "none"
            raise SpectangleError(f"{self.path} has no {group[:-1]} '{name}'; it has: {have}.")
        return self._file[group][name]

    def _verify(self) -> None:
        hasher = _ContentHasher()
        hasher.update("wavelength", self.wavelength)
        for name, dataset in _star_datasets(self._file):
            for start, stop in self.chunks():
                hasher.update(name, dataset[start:stop])
        if hasher.hexdigest() != self.content_hash:
            raise SpectangleError(
                f"{self.path} does not have the content that it was written with (content_hash differs): it was damaged or edited; write it again."
            )


class SurveyWriter:
    """Write a survey file chunk by chunk, beside its final name; rename it when the block ends well.

    Arguments:
        path: Final file name.
        wavelength: Vacuum wavelengths [P] in nm.
        label_units: Unit of each label by name.
        origin: Where the stars come from, for instance ``Gaia DR3 x APOGEE DR17``.
        release: Data release or version.
        created_by: Command and version; default: this command line and the package version.

    Raises:
        SpectangleError: The disk is full, the folder cannot be written, a name has a slash, or a chunk does not fit the format.
    """

    def __init__(
        self,
        path: str | Path,
        wavelength: np.ndarray,
        label_units: Mapping[str, str],
        origin: str,
        release: str,
        created_by: str | None = None,
    ):
        self.path = Path(path)
        self._part = self.path.with_name(self.path.name + ".part")
        self._wavelength = np.asarray(wavelength, dtype=np.float64)
        self._units = dict(label_units)
        _check_names(self._units, "label")
        self._attributes = {
            "origin": origin,
            "release": release,
            "created_by": created_by or f"{' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])} (spectangle {__version__})",
        }
        self._hasher = _ContentHasher()
        self.n_stars = 0

    def __enter__(self) -> "SurveyWriter":
        with _disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: Any = h5py.File(self._part, "w")
            wavelength = self._file.create_dataset("wavelength", data=self._wavelength)
            wavelength.attrs.update(unit="nm", medium="vacuum")
            for group in STAR_GROUPS:
                self._file.create_group(group, track_order=True)  # labels keep the order that they were given in
            self._hasher.update("wavelength", self._wavelength)
        return self

    def append(
        self,
        source_id: np.ndarray,
        flux: np.ndarray,
        labels: Mapping[str, np.ndarray],
        flux_error: np.ndarray | None = None,
        label_errors: Mapping[str, np.ndarray] | None = None,
        columns: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Append n stars: source_id [n] int64, flux and flux_error [n, P], each label, error and column [n]."""
        source_id = np.asarray(source_id)
        if source_id.dtype.kind not in "iu":
            raise SpectangleError(f"source_id came as {source_id.dtype}; it must be an integer type, or Gaia ids lose digits.")
        if set(labels) != set(self._units):
            raise SpectangleError(f"Labels {sorted(labels)} were appended to a survey of labels {sorted(self._units)}.")
        for what, names in (("label error", label_errors), ("column", columns)):
            _check_names(names or (), what)
        arrays = {"flux": np.asarray(flux, np.float32), "source_id": source_id.astype(np.int64)}
        if flux_error is not None:
            arrays["flux_error"] = np.asarray(flux_error, np.float32)
        arrays |= {f"labels/{name}": np.asarray(labels[name], np.float32) for name in self._units}
        arrays |= {f"label_errors/{name}": np.asarray(v, np.float32) for name, v in (label_errors or {}).items()}
        arrays |= {f"columns/{name}": _storable(v) for name, v in (columns or {}).items()}
        self._check_shapes(arrays)
        with _disk_errors(self.path):
            for name, values in arrays.items():
                self._append(name, values)
        self.n_stars += len(source_id)

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            with suppress(Exception):
                self._file.close()
            self._part.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self.n_stars == 0:
            raise SpectangleError(f"No star was written to {self.path}: a survey needs at least one.")
        ids = self._file["source_id"][:]
        if len(np.unique(ids)) != len(ids):
            values, counts = np.unique(ids, return_counts=True)
            raise SpectangleError(f"source_id {values[counts > 1][0]} comes more than once; keep one row per star.")
        with _disk_errors(self.path):
            self._file.attrs.update(self._attributes, content_hash=self._hasher.hexdigest())
            self._file.close()
            self._part.replace(self.path)

    def _check_shapes(self, arrays: Mapping[str, np.ndarray]) -> None:
        n = len(arrays["source_id"])
        for name, values in arrays.items():
            expected = (n, len(self._wavelength)) if name in ("flux", "flux_error") else (n,)
            if values.shape != expected:
                raise SpectangleError(f"{name} has shape {values.shape}; this chunk of {n} stars needs {expected}.")
            if self.n_stars and name not in self._file:
                raise SpectangleError(f"{name} appears in a later chunk only; every chunk must have the same arrays.")
        if self.n_stars:
            missing = {name for name, _ in _star_datasets(self._file)} - set(arrays)
            if missing:
                raise SpectangleError(f"A later chunk lacks {', '.join(sorted(missing))}; every chunk must have the same arrays.")

    def _append(self, name: str, values: np.ndarray) -> None:
        if name not in self._file:
            rows = min(max(len(values), 1), 256 if values.ndim == 2 else 65536)
            self._file.create_dataset(
                name, shape=(0, *values.shape[1:]), maxshape=(None, *values.shape[1:]), dtype=values.dtype, chunks=(rows, *values.shape[1:])
            )
            if name.startswith("labels/"):
                self._file[name].attrs["unit"] = self._units[name.removeprefix("labels/")]
        dataset = self._file[name]
        dataset.resize(self.n_stars + len(values), axis=0)
        dataset[self.n_stars :] = values
        self._hasher.update(name, values)


class _ContentHasher:
    """One SHA-256 per dataset, joined by name at the end: the chunk size does not matter."""

    def __init__(self):
        self._hashes: dict = {}

    def update(self, name: str, values: np.ndarray) -> None:
        if values.dtype.kind == "O":
            values = np.array([str(v) for v in values.ravel()]).astype("S64")
        self._hashes.setdefault(name, hashlib.sha256()).update(np.ascontiguousarray(values).tobytes())

    def hexdigest(self) -> str:
        joined = "".join(f"{name}:{self._hashes[name].hexdigest()};" for name in sorted(self._hashes))
        return hashlib.sha256(joined.encode()).hexdigest()


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
                or f"{self.path} could not be written ({error}); nothing was left behind. Free some space or choose another folder."
            ) from error


def locked(path: Path, error: BaseException) -> str | None:
    """What to say where HDF5 cannot lock a file: another program writes it, or the disk knows no locks; None if the error is another one."""
    if "unable to lock file" not in str(error):
        return None
    return (
        f"{path} cannot be locked ({str(error).strip('.')}): another program has it open, or it lies on a disk without locks, as some NFS are. "
        "Close it there; or, if nobody writes it, set the environment variable HDF5_USE_FILE_LOCKING=FALSE and run the command again."
    )


def _storable(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return values.astype("S64") if values.dtype.kind in "UO" else values


def _check_names(names: Iterable[str], what: str) -> None:
    """Refuse names that HDF5 reads as a path: [Fe/H] would be a group with a dataset in it."""
    for name in names:
        if not name or "/" in name or set(name) == {"."}:
            mended = re.sub(r"\W+", "_", name.lower()).strip("_") or what.split()[0]
            raise SpectangleError(f"The {what} '{name}' cannot be a name in a survey file, where a slash separates folders; call it {mended}.")


def _open(path: Path) -> Any:  # h5py's own types cannot tell a group from a dataset
    if not path.is_file():
        raise SpectangleError(f"There is no survey file {path}; check the path, or make one with prepare.py.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if sentence := locked(path, error):
            raise SpectangleError(sentence) from error
        raise SpectangleError(f"{path} cannot be read as HDF5 ({error}): it is truncated or of another format; copy or write it again.") from error


def _star_datasets(file: Any) -> Iterator[tuple[str, Any]]:
    for name in ("source_id", "flux", "flux_error"):
        if name in file:
            yield name, file[name]
    for group in STAR_GROUPS:
        for name in file.get(group, ()):
            yield f"{group}/{name}", file[group][name]


def _validate(path: Path, file: Any) -> None:
    for problem in _problems(file):
        raise SpectangleError(f"{path} is not a survey file: {problem}")


def _problems(file: Any) -> Iterator[str]:
    """Yield what breaks the format, each with its mend; the later checks rely on the earlier ones."""
    for name in ("flux", "wavelength", "source_id", "labels"):
        if name not in file:
            yield f"'{name}' is missing; write it with spectangle.survey.SurveyWriter."
    for key in ("origin", "release", "created_by", "content_hash"):
        if key not in file.attrs:
            yield f"the file attribute '{key}' is missing; write it with spectangle.survey.SurveyWriter."
    if file["source_id"].dtype != np.int64:
        yield f"source_id is {file['source_id'].dtype}, not int64; read the ids again from the archive, since floats have lost their last digits."
    if file["flux"].ndim != 2 or file["flux"].dtype != np.float32:
        yield f"flux is {file['flux'].ndim}-dimensional {file['flux'].dtype}, not [stars, pixels] float32."
    unit, medium = file["wavelength"].attrs.get("unit"), file["wavelength"].attrs.get("medium")
    if unit != "nm":
        yield f"wavelength is in '{unit}', not 'nm'; convert it and set its attribute unit to nm."
    if medium != "vacuum":
        yield f"wavelength is for '{medium}', not 'vacuum'; convert it and set its attribute medium to vacuum."
    stars, pixels = file["flux"].shape
    wavelength = file["wavelength"][:]
    if wavelength.shape != (pixels,) or not np.all(np.diff(wavelength) > 0):
        yield f"wavelength has shape {wavelength.shape} or does not increase; it needs {pixels} increasing values."
    if not len(file["labels"]):
        yield "it has no label; a survey needs at least one in 'labels/'."
    if not stars:
        yield "it has no star."
    for name, dataset in _star_datasets(file):
        if not hasattr(dataset, "shape"):
            yield f"{name} is a group, since the name of what it holds has a slash; write it under another name, fe_h for [Fe/H]."
        expected = (stars, pixels) if name in ("flux", "flux_error") else (stars,)
        if dataset.shape != expected:
            yield f"{name} has shape {dataset.shape}, not {expected}."
    for name in file["labels"]:
        if "unit" not in file["labels"][name].attrs:
            yield f"labels/{name} has no attribute 'unit'; set it, for instance to K or dex."
