"""Spectra to be read by a model: a survey file, files of an archive, or arrays with their wavelength grid.

Shapes: n stars in a chunk, Q pixels as they came, P pixels of the model.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectangle.archives.gaia_files import GaiaFiles
from spectangle.archives.plain import load_array
from spectangle.archives.rows import BadRows
from spectangle.archives.source_ids import as_source_ids
from spectangle.archives.wavelengths import check_range, check_vacuum, nanometres
from spectangle.errors import SpectangleError
from spectangle.prediction.grids import to_grid
from spectangle.survey import Survey

__all__ = ["InputSpectra", "StarChunk", "open_spectra"]

CHUNK = 2048

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StarChunk:
    """Some stars on the model's grid: source_id [n], flux [n, P], flux_error [n, P] or None, labels of the survey or None."""

    source_id: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray | None
    labels: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.source_id)


@dataclass(frozen=True)
class InputSpectra:
    """A source of spectra: `n_stars` (None: not known before the end) and `chunks`, to be gone through once."""

    n_stars: int | None
    chunks: Iterator[StarChunk]


def open_spectra(
    path: str | None,
    grid: np.ndarray,
    wavelength: str | None = None,
    flux_error: str | None = None,
    source_id: str | None = None,
    max_bad_rows: int = 0,
) -> InputSpectra:
    """Open spectra of any kind and put them on a model's grid.

    Arguments:
        path: Survey file (.h5), array (.npy, or .npz with flux, wavelength and optionally flux_error, source_id), or file,
            folder or pattern of Gaia RVS spectra.
        grid: Vacuum wavelengths [P] in nm of the model.
        wavelength, flux_error, source_id: For .npy, the other arrays.
        max_bad_rows: Of an archive, see :class:`~spectangle.archives.rows.BadRows`.

    Raises:
        SpectangleError: The file is missing or broken, or its grid does not fit.
    """
    if not path:
        raise SpectangleError("spectra is empty; give a survey file, files of an archive or an array: spectra=FILE.")
    suffix = Path(path).suffix
    if suffix in (".h5", ".hdf5"):
        return _from_survey(path, grid)
    if suffix in (".npy", ".npz"):
        arrays = _npz(path) if suffix == ".npz" else _npy(path, wavelength, flux_error, source_id)
        return _from_arrays(path, arrays, grid)
    return _from_archive(path, grid, max_bad_rows)


def _from_survey(path: str, grid: np.ndarray) -> InputSpectra:
    with Survey(path) as survey:
        n_stars = len(survey)
        to_grid(np.asarray(survey.wavelength), survey.flux(0, 1), None, grid, path)  # refuse before the first bar is drawn

    def chunks() -> Iterator[StarChunk]:
        with Survey(path) as survey:
            ids = survey.source_id
            labels = {name: survey.label(name) for name in survey.labels}
            for start, stop in survey.chunks(CHUNK):
                flux, error = to_grid(np.asarray(survey.wavelength), survey.flux(start, stop), survey.flux_error(start, stop), grid, path)
                yield StarChunk(ids[start:stop], flux, error, {name: values[start:stop] for name, values in labels.items()})

    return InputSpectra(n_stars, chunks())


def _from_archive(path: str, grid: np.ndarray, max_bad_rows: int) -> InputSpectra:
    archive, bad = GaiaFiles(path, verify_md5=False), BadRows(max_bad_rows)
    groups = archive.work()

    def chunks() -> Iterator[StarChunk]:
        for file in (file for group in groups for file in group):
            for chunk in archive.read(file, bad):
                check_vacuum(chunk.wavelength, chunk.flux, str(file))
                flux, error = to_grid(chunk.wavelength, chunk.flux, chunk.flux_error, grid, str(file))
                yield StarChunk(chunk.source_id, flux, error)

    return InputSpectra(None, chunks())


def _from_arrays(path: str, arrays: dict[str, np.ndarray], grid: np.ndarray) -> InputSpectra:
    flux, error = np.atleast_2d(arrays["flux"]), arrays.get("flux_error")
    error = None if error is None else np.atleast_2d(error)
    wavelength = nanometres(arrays["wavelength"], None, path)
    if flux.ndim != 2 or flux.shape[1] != len(wavelength) or (error is not None and error.shape != flux.shape):
        shapes = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
        raise SpectangleError(
            f"{path}: the arrays have the shapes {shapes}; expected are flux [stars, pixels], wavelength [pixels] and flux_error like flux."
        )
    check_range(wavelength, path)
    check_vacuum(wavelength, np.asarray(flux[:256], np.float32), path)
    to_grid(wavelength, np.asarray(flux[:1], np.float32), None, grid, path)
    ids = as_source_ids(arrays["source_id"], f"{path}, source_id") if "source_id" in arrays else np.arange(1, len(flux) + 1)
    if len(ids) != len(flux):
        raise SpectangleError(f"{path}: there are {len(ids)} source_id and {len(flux)} spectra; they must match row by row.")
    if "source_id" not in arrays:
        log.info("%s names no source_id; the stars are numbered from 1.", path)

    def chunks() -> Iterator[StarChunk]:
        for start in range(0, len(flux), CHUNK):
            rows = slice(start, start + CHUNK)
            one, one_error = np.asarray(flux[rows], np.float32), None if error is None else np.asarray(error[rows], np.float32)
            one, one_error = to_grid(wavelength, one, one_error, grid, path)
            yield StarChunk(ids[rows], one, one_error)

    return InputSpectra(len(flux), chunks())


def _npy(path: str, wavelength: str | None, flux_error: str | None, source_id: str | None) -> dict[str, np.ndarray]:
    if wavelength is None:
        raise SpectangleError(f"{path} is an array without a grid; give its vacuum wavelengths in nm: wavelength=FILE.npy.")
    arrays = {"flux": _load(path), "wavelength": load_array(wavelength, 1)}
    arrays |= {} if flux_error is None else {"flux_error": _load(flux_error)}
    return arrays | ({} if source_id is None else {"source_id": load_array(source_id, 1)})


def _load(path: str) -> np.ndarray:
    """One spectrum [Q] or many [n, Q]."""
    try:
        return load_array(path, 2)
    except SpectangleError as error:
        if "dimension" not in str(error):
            raise
        return load_array(path, 1)


def _npz(path: str) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise SpectangleError(f"There is no file {path}; check the path of the array.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("flux", "wavelength", "flux_error", "source_id") if name in file.files}
    except (ValueError, OSError) as error:
        raise SpectangleError(f"{path} cannot be read as arrays ({error}); write it with numpy.savez(file, flux=..., wavelength=...).") from None
    if missing := {"flux", "wavelength"} - set(arrays):
        raise SpectangleError(f"{path} has no array '{sorted(missing)[0]}'; write it with numpy.savez(file, flux=..., wavelength=...).")
    return arrays
