"""One group of archive files to one part file, in another process if need be: the step that a stop does not undo.

A part is an HDF5 file of the group's wanted stars on the survey's pixels, written beside its name and renamed; its name
carries a digest of the files (names, sizes, dates), the settings and the wanted ids, so a part that exists is right.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spectangle.archives.source import ScalesToMedian, Source
from spectangle.archives.spectra.chunk import SpectraChunk, drop_bad_rows
from spectangle.archives.spectra.resample import Pixels
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.errors import SpectangleError
from spectangle.survey.disk_file import hdf5_to_write
from spectangle.survey.format import locked
from spectangle.survey.wavelengths import VacuumCheck

__all__ = ["Job", "convert", "open_part", "part_path", "words_in"]

FORMAT = 5  # of the part files
COOL_MARGIN = 0.02
OTHER_GRID = (
    "has another wavelength grid than the spectra before it; prepare them apart, or use pixels.method=resample."
)


@dataclass(frozen=True)
class Job:
    """What every process must know.

    Arguments:
        source: Where the spectra come from.
        pixels: The survey's pixels.
        wanted: Sorted ids [m] int64 of the labelled stars; None: every star.
        folder: Where the parts go.
        max_bad_rows: See :class:`~spectangle.archives.tables.bad_rows.BadRows`.
    """

    source: Source
    pixels: Pixels
    wanted: np.ndarray | None
    folder: Path
    max_bad_rows: int

    def digest(self) -> str:
        """Of everything but the files."""
        text = f"{FORMAT} {self.source!r} {self.pixels!r} {self.max_bad_rows}"
        ids = b"all" if self.wanted is None else self.wanted.tobytes()
        return hashlib.sha256(text.encode() + ids).hexdigest()


def open_part(path: Path) -> Any:
    """Open a part to read it."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise SpectangleError(
            locked(path, error) or f"{path} cannot be read ({error}); remove it and run the command again."
        ) from None


def words_in(file: Any, name: str) -> list[str]:
    """A list of texts of an open part."""
    return json.loads(file[name].asstr()[()])


def part_path(job: Job, job_digest: str, paths: Sequence[Path]) -> Path:
    """Name of the part of a group of files."""
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()]
    digest = hashlib.sha256(f"{job_digest} {stamps}".encode()).hexdigest()[:16]
    return job.folder / f"{Path(paths[0].name).stem.split('.')[0]}-{digest}.h5"


def convert(job: Job, paths: Sequence[Path], part: Path) -> Path:
    """Read a group of files and write its part; nothing is done when it is there.

    Raises:
        SpectangleError: A file cannot be used, or has too many bad rows.
    """
    if part.is_file():
        return part
    bad, vacuum = BadRows(job.max_bad_rows), VacuumCheck()
    beside = part.with_suffix(f".{np.random.default_rng().integers(1 << 32):08x}.part")
    try:
        with hdf5_to_write(beside) as file:
            for number, path in enumerate(paths):
                for chunk in _chunks(job, path, bad):
                    good = drop_bad_rows(chunk, bad, job.pixels.nonpositive_error)
                    vacuum.add(good.wavelength, good.flux, str(path))
                    _append(file, job, number, good)
            vacuum.finish()
            _drop_partial_errors(file)
            for name, words in (
                ("paths", [str(p) for p in paths]),
                ("sentences", bad.sentences),
                ("unused", bad.unused),
            ):
                file[name] = json.dumps(words)  # no attribute: those hold 64 kB at most
            file.attrs.update(bad_rows=bad.count, rows=bad.read, example_id=bad.example_id)
        beside.replace(part)
    except (OSError, RuntimeError) as error:  # h5py has both
        sentence = f"{part} could not be written ({error}); free some space or choose another folder for the survey."
        raise SpectangleError(locked(part, error) or sentence) from None
    finally:
        beside.unlink(missing_ok=True)
    return part


def _chunks(job: Job, path: Path, bad: BadRows) -> Iterator[SpectraChunk]:
    """The spectra of a file; an error of the disk in here is of this file, not of the part."""
    try:
        yield from job.source.read(path, bad, job.wanted)
    except OSError as error:
        raise SpectangleError(
            f"{path} cannot be read ({error}); copy or download it again, or take it out of the folder."
        ) from None


def _append(file: Any, job: Job, number: int, chunk: SpectraChunk) -> None:
    if len(chunk) == 0:
        return
    pixels, source = job.pixels, job.source
    grid = pixels.grid(chunk.wavelength)
    if "wavelength" not in file:
        file["wavelength"] = grid
        file["covered"] = np.zeros(len(grid), dtype=bool)
    elif not np.array_equal(file["wavelength"][:], grid):
        raise SpectangleError(f"{chunk.path}: star {chunk.source_id[0]} {OTHER_GRID}")
    flux, error = pixels.apply(chunk.wavelength, chunk.flux, chunk.flux_error)
    masked = ~np.isfinite(flux)
    filled = pixels.filled(flux)
    file["covered"][:] |= np.isfinite(filled).any(axis=0)
    values = {
        "source_id": chunk.source_id,
        "row": chunk.row,
        "file": np.full(len(chunk), number),
        "masked_fraction": masked.mean(axis=1, dtype=np.float32),
        "flux": filled,
        "rvs_snr": signal_to_noise(chunk.flux, chunk.flux_error),
    }
    if isinstance(source, ScalesToMedian) and source.scales_to_median:
        values["median_normalised"] = median_normalised(flux, error)
    if error is not None:
        values["flux_error"] = error
    for name, array in values.items():
        _extend(file, name, array)


def _drop_partial_errors(file: Any) -> None:
    """Drop the errors where some stars of the part have none: a survey has errors of all stars or of none."""
    if "flux_error" in file and len(file["flux_error"]) < len(file["source_id"]):
        del file["flux_error"]


def _extend(file: Any, name: str, values: np.ndarray) -> None:
    if name not in file:
        shape = values.shape[1:]
        file.create_dataset(name, data=values, maxshape=(None, *shape), chunks=(min(len(values), 256), *shape))
        return
    dataset = file[name]
    dataset.resize(len(dataset) + len(values), axis=0)
    dataset[-len(values) :] = values


def signal_to_noise(flux: np.ndarray, error: np.ndarray | None) -> np.ndarray:
    """Median of flux / flux_error over the good archive pixels [n]; NaN without errors."""
    if error is None:
        return np.full(len(flux), np.nan, dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _quantiles(flux / error, (0.5,))[0]


def median_normalised(flux: np.ndarray, error: np.ndarray | None) -> np.ndarray:
    """Whether a spectrum [n, Q] seems scaled to its median instead of its continuum (1 yes, 0 no, int8).

    Gaia's pipeline does this where the template is too cool to have a continuum (Seabroke et al. 2022). The files have
    no flag: a spectrum counts whose median is 1 within 0.002 and whose upper tenth rises above 1 by 5 errors and 0.02.
    """
    middle, upper = _quantiles(flux, (0.5, 0.9))
    noise = 0.0 if error is None else np.nan_to_num(_quantiles(error, (0.5,))[0])
    with np.errstate(invalid="ignore"):
        return ((np.abs(middle - 1) < 0.002) & (upper - 1 > COOL_MARGIN + 5 * noise)).astype(np.int8)


def _quantiles(values: np.ndarray, levels: Sequence[float]) -> list[np.ndarray]:
    """Quantiles of the finite values of each row [n]; NaN where a row has none."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.float32(np.nan)), axis=1)  # NaN comes last
    last = np.maximum(np.isfinite(ordered).sum(axis=1) - 1, 0)
    rows, result = np.arange(len(values)), []
    for level in levels:
        place = level * last
        low = np.floor(place).astype(int)
        high = np.ceil(place).astype(int)
        weight = (place - low).astype(np.float32)
        result.append((1 - weight) * ordered[rows, low] + weight * ordered[rows, high])
    return result
