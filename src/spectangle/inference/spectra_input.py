"""Spectra to be read by a model: a survey file, files of an archive, or arrays with their wavelength grid.

Shapes: n stars in a chunk, Q pixels as they came, P pixels of the model.
"""

import logging
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from spectangle.archives.gaia.gaia_files import GaiaFiles
from spectangle.archives.plain import load_array
from spectangle.archives.spectra.air import in_vacuum
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.errors import SpectangleError
from spectangle.inference.model_grid import to_grid
from spectangle.survey.file import Survey
from spectangle.survey.format import is_synthetic
from spectangle.survey.given import as_flux
from spectangle.survey.source_ids import NO_ID, as_source_ids, check_not_rounded
from spectangle.survey.wavelengths import VacuumCheck, check_range, check_vacuum, nanometres

__all__ = [
    "InputSpectra",
    "StarChunk",
    "array_chunks",
    "arrays_on_grid",
    "check_arrays",
    "open_spectra",
    "star_ids",
    "vacuum_grid",
]

CHUNK = 2048
NOBODY = np.zeros(0, dtype=np.int64)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StarChunk:
    """Some stars on the model's grid: source_id [n], flux [n, P], flux_error [n, P] or None, labels of the survey or
    None.
    """

    source_id: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray | None
    labels: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.source_id)


@dataclass(frozen=True)
class InputSpectra:
    """A source of spectra: `n_stars` (None: not known before the end), `chunks`, to be gone through once, and whether
    its stars are made up.
    """

    n_stars: int | None
    chunks: Iterator[StarChunk]
    synthetic: bool = False


def open_spectra(
    path: str | None,
    grid: np.ndarray,
    wavelength: str | None = None,
    flux_error: str | None = None,
    source_id: str | None = None,
    max_bad_rows: int = 0,
    wavelength_unit: str = "nm",
    medium: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> InputSpectra:
    """Open spectra of any kind and put them on a model's grid.

    Arguments:
        path: Survey file (.h5), array (.npy, or .npz with flux, wavelength and optionally flux_error, source_id), or
            file, folder or pattern of Gaia RVS spectra.
        grid: Vacuum wavelengths [P] in nm of the model.
        wavelength, flux_error, source_id: For .npy, the other arrays.
        max_bad_rows: Of an archive, see :class:`~spectangle.archives.tables.bad_rows.BadRows`.
        wavelength_unit: Of arrays.
        medium: ``air`` (of arrays) is converted; ``vacuum`` is believed; None: vacuum, unless a line lies where it lies
            in air.
        columns: Names of columns of an archive's files, see :class:`~spectangle.archives.gaia.gaia_files.GaiaFiles`.

    Raises:
        SpectangleError: The file is missing or broken, or its grid does not fit.
    """
    if not path:
        raise SpectangleError("spectra is empty; give a survey file, files of an archive or an array: spectra=FILE.")
    suffix = Path(path).suffix.lower()
    if suffix in (".h5", ".hdf5"):
        return _from_survey(path, grid)
    if suffix in (".npy", ".npz"):
        arrays = _npz(path) if suffix == ".npz" else _npy(path, wavelength, flux_error, source_id)
        keys = ("wavelength_unit", "medium")
        known = vacuum_grid(arrays["wavelength"], path, wavelength_unit, medium or "vacuum", keys)
        return _from_arrays(path, arrays, known, grid, stated=medium is not None)
    if medium not in (None, "vacuum"):
        raise SpectangleError(
            f"medium={medium} came with {path}: only arrays (.npy, .npz) can be converted, and files of an archive "
            "are in vacuum. Leave medium out, or write the spectra as an array."
        )
    return _from_archive(path, grid, max_bad_rows, columns, stated=medium is not None)


def vacuum_grid(
    wavelength: Any, where: str, unit: str = "nm", medium: str = "vacuum", keys: tuple[str, str] = ("", "medium")
) -> np.ndarray:
    """Wavelengths [Q] in nm in vacuum, of numbers in a unit, or of an astropy Quantity.

    Arguments:
        keys: What states unit and medium where they came from, for sentences.

    Raises:
        SpectangleError: They are masked, do not increase, or seem to have another unit.
    """
    if isinstance(wavelength, u.Quantity):
        wavelength, unit = wavelength.value, str(wavelength.unit)
    values = nanometres(np.ma.filled(np.ma.asarray(wavelength).astype(np.float64), np.nan), unit, where)
    check_range(values, where, key=keys[0])
    return in_vacuum(values, medium, where, keys[1])


def star_ids(source_id: Any, n: int, where: str) -> np.ndarray:
    """Identifiers [n] of stars, 1 to n where none are given.

    Raises:
        SpectangleError: They are floats or were, or not one for each spectrum.
    """
    if source_id is None:
        return np.arange(1, n + 1)
    ids = as_source_ids(np.ma.atleast_1d(np.ma.asarray(source_id)), f"{where}, source_id")
    if len(ids) != n:
        raise SpectangleError(f"{where}: there are {len(ids)} source_id and {n} spectra; they must match row by row.")
    if NO_ID in ids:
        raise SpectangleError(
            f"{where}, row {int(np.argmax(ids == NO_ID)) + 1}: the spectrum has no source_id; give one for each "
            "spectrum."
        )
    check_not_rounded(ids, f"{where}, source_id")
    return ids


def arrays_on_grid(
    flux: Any, flux_error: Any, wavelength: np.ndarray, grid: np.ndarray, where: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Flux and errors [n, P] on a model's grid, of arrays [n, Q] of any kind; masked pixels and fill values are NaN."""
    values, error = (
        as_flux(flux, f"{where}, flux"),
        None if flux_error is None else as_flux(flux_error, f"{where}, flux_error"),
    )
    return to_grid(wavelength, values, error, grid, where)


def array_chunks(
    ids: np.ndarray, flux: Any, flux_error: Any, wavelength: np.ndarray, grid: np.ndarray, where: str
) -> Iterator[StarChunk]:
    """The stars of arrays [n, Q] some at a time, on a model's grid."""
    for start in range(0, len(flux), CHUNK):
        rows = slice(start, start + CHUNK)
        error = None if flux_error is None else flux_error[rows]
        yield StarChunk(ids[rows], *arrays_on_grid(flux[rows], error, wavelength, grid, where))


def check_arrays(
    flux: Any, flux_error: Any, wavelength: np.ndarray, where: str, key: str = "", stated: bool = False
) -> None:
    """Refuse arrays that do not belong together, and rest-frame spectra with their lines where they lie in air, unless
    their medium is stated.
    """
    shapes = {"flux": np.shape(flux), "wavelength": wavelength.shape} | (
        {} if flux_error is None else {"flux_error": np.shape(flux_error)}
    )
    if (
        len(shapes["flux"]) != 2
        or shapes["flux"][1] != len(wavelength)
        or shapes.get("flux_error", shapes["flux"]) != shapes["flux"]
    ):
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise SpectangleError(
            f"{where}: the arrays have the shapes {said}; expected are flux [stars, pixels], wavelength [pixels] "
            "and flux_error like flux."
        )
    if not stated:
        check_vacuum(wavelength, as_flux(flux[:256], f"{where}, flux"), where, key)


def _from_survey(path: str, grid: np.ndarray) -> InputSpectra:
    with Survey(path) as survey:
        n_stars, synthetic = len(survey), is_synthetic(survey.attributes["origin"])
        if not synthetic:  # made-up ids may be any numbers
            check_not_rounded(survey.source_id, f"{path}, source_id")
        to_grid(
            np.asarray(survey.wavelength), survey.flux(0, 1), None, grid, path
        )  # refuse before the first bar is drawn

    def chunks() -> Iterator[StarChunk]:
        with Survey(path) as survey:
            ids = survey.source_id
            labels = {name: survey.label(name) for name in survey.labels}
            for start, stop in survey.chunks(CHUNK):
                flux, error = arrays_on_grid(
                    survey.flux(start, stop), survey.flux_error(start, stop), np.asarray(survey.wavelength), grid, path
                )
                yield StarChunk(
                    ids[start:stop], flux, error, {name: values[start:stop] for name, values in labels.items()}
                )

    return InputSpectra(n_stars, chunks(), synthetic)


def _from_archive(
    path: str, grid: np.ndarray, max_bad_rows: int, columns: Mapping[str, str] | None, stated: bool
) -> InputSpectra:
    archive, bad = GaiaFiles(path, dict(columns or {}), verify_md5=False), BadRows(max_bad_rows, keys="")
    groups = archive.work()

    def chunks() -> Iterator[StarChunk]:
        vacuum = VacuumCheck()
        for file in (file for group in groups for file in group):
            for chunk in archive.read(file, bad):
                if not stated:
                    vacuum.add(chunk.wavelength, chunk.flux, str(file))
                flux, error = to_grid(chunk.wavelength, chunk.flux, chunk.flux_error, grid, str(file))
                yield StarChunk(chunk.source_id, flux, error)
        vacuum.finish()
        for word, sentences in (
            ("skipped", bad.sentences),
            ("not used", bad.unused + archive.left_out(NOBODY, NOBODY)),
        ):
            for sentence in sentences:
                log.warning("%s: %s", word, sentence)

    return InputSpectra(None, _collected(chunks(), path))


def _collected(chunks: Iterator[StarChunk], where: str) -> Iterator[StarChunk]:
    """Put small chunks together, in their order: files with a star each would be read by the model a star at a time,
    and rounded ids are seen among many only.
    """
    waiting: list[StarChunk] = []
    for chunk in chunks:
        if not len(chunk):
            continue
        other = waiting and (chunk.flux_error is None) != (waiting[0].flux_error is None)
        if other or sum(map(len, waiting)) + len(chunk) > CHUNK:
            yield from _joined(waiting, where)
            waiting = []
        waiting.append(chunk)
    yield from _joined(waiting, where)


def _joined(chunks: list[StarChunk], where: str) -> Iterator[StarChunk]:
    """One chunk of several that all have errors, or all none; nothing of none."""
    if chunks:
        errors = [chunk.flux_error for chunk in chunks if chunk.flux_error is not None]
        ids = np.concatenate([chunk.source_id for chunk in chunks])
        check_not_rounded(ids, f"{where}, source_id")
        yield StarChunk(
            ids,
            np.concatenate([chunk.flux for chunk in chunks]),
            np.concatenate(errors) if errors else None,
        )


def _from_arrays(
    path: str, arrays: dict[str, np.ndarray], wavelength: np.ndarray, grid: np.ndarray, stated: bool
) -> InputSpectra:
    flux, error = np.atleast_2d(arrays["flux"]), arrays.get("flux_error")
    error = None if error is None else np.atleast_2d(error)
    check_arrays(flux, error, wavelength, path, "medium", stated)
    arrays_on_grid(flux[:1], None, wavelength, grid, path)
    ids = star_ids(arrays.get("source_id"), len(flux), path)
    if "source_id" not in arrays:
        log.info("%s names no source_id; the stars are numbered from 1.", path)
    return InputSpectra(len(flux), array_chunks(ids, flux, error, wavelength, grid, path))


def _npy(path: str, wavelength: str | None, flux_error: str | None, source_id: str | None) -> dict[str, np.ndarray]:
    if wavelength is None:
        raise SpectangleError(
            f"{path} is an array without a grid; give its vacuum wavelengths in nm: wavelength=FILE.npy."
        )
    arrays = {"flux": load_array(path, None), "wavelength": load_array(wavelength, 1)}
    arrays |= {} if flux_error is None else {"flux_error": load_array(flux_error, None)}
    return arrays | ({} if source_id is None else {"source_id": load_array(source_id, None)})


def _npz(path: str) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise SpectangleError(f"There is no file {path}; check the path of the array.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {
                name: file[name] for name in ("flux", "wavelength", "flux_error", "source_id") if name in file.files
            }
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SpectangleError(
            f"{path} cannot be read as arrays ({error}); write it with numpy.savez(file, flux=..., wavelength=...)."
        ) from None
    if missing := {"flux", "wavelength"} - set(arrays):
        raise SpectangleError(
            f"{path} has no array '{sorted(missing)[0]}'; write it with numpy.savez(file, flux=..., wavelength=...)."
        )
    return arrays
