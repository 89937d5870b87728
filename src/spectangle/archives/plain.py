"""The plain form: an array of spectra [N, P] with a table of labels that has a row for each of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectangle.archives.labels.label_table import LabelTable
from spectangle.archives.labels.plain_labels import ids_of, read_label_table
from spectangle.archives.spectra.air import in_vacuum
from spectangle.archives.spectra.chunk import SpectraChunk
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.archives.tables.table_file import read_table
from spectangle.errors import SpectangleError
from spectangle.survey.given import as_flux
from spectangle.survey.source_ids import NO_ID, check_not_rounded, positions_in
from spectangle.survey.wavelengths import check_range, check_vacuum, linear_grid, nanometres

__all__ = ["Plain", "array_chunks", "load_array"]

CHUNK = 2048


@dataclass(frozen=True)
class Plain:
    """Spectra in .npy arrays, labels in any table that astropy reads.

    Arguments:
        spectra: Array [N, P] of normalised flux (.npy); NaN = missing.
        labels_table: Table of N rows in the same order: source_id, labels, optionally phot_g_mean_mag and
            <label>_error.
        flux_error: Array [N, P] (.npy), or None.
        wavelength: Array [P] (.npy); None: grid_start + grid_step * i.
        grid_start, grid_step: Used without `wavelength`, in nm.
        wavelength_unit: Unit of the array, for instance Angstrom.
        medium: ``vacuum``, or ``air``, which is converted.
        columns: {label: column}, see :func:`label_table.read_label_table`.
        id_column: Column of the ids.
        units: {label: unit} in which the survey keeps them, default: K and dex; columns in other units are converted.
        keep_columns: Other columns of the table that the survey keeps, such as the instrument.
        release: Kept in the survey.
    """

    spectra: str
    labels_table: str
    flux_error: str | None = None
    wavelength: str | None = None
    grid_start: float = 846.0
    grid_step: float = 0.01
    wavelength_unit: str = "nm"
    medium: str = "vacuum"
    columns: dict[str, str] | None = None
    id_column: str = "source_id"
    units: dict[str, str] | None = None
    keep_columns: Sequence[str] = ()
    release: str = "unknown"

    @property
    def origin(self) -> str:
        return Path(self.spectra).name

    @property
    def label_keys(self) -> dict[str, str]:
        """What is written instead of options of ``labels``."""
        own = {key: f"archive.{key}=..." for key in ("columns", "units", "id_column", "keep_columns")}
        return {"table": "labels_table=..."} | own

    def work(self) -> list[list[Path]]:
        """The one array."""
        return [[Path(self.spectra)]]

    def read(self, path: Path, bad: BadRows, wanted: np.ndarray | None = None) -> Iterator[SpectraChunk]:
        """Yield the wanted stars in chunks; the arrays are memory-mapped."""
        flux = load_array(path, 2)
        error = None if self.flux_error is None else load_array(self.flux_error, 2)
        if error is not None and error.shape != flux.shape:
            raise SpectangleError(
                f"{self.flux_error} has shape {error.shape} and {path} has {flux.shape}; they must be the same."
            )
        ids = ids_of(read_table(self.labels_table, [self.id_column]), self.labels_table, self.id_column, "archive")
        if len(ids) != len(flux):
            raise SpectangleError(
                f"{self.labels_table} has {len(ids)} rows and {path} has {len(flux)} spectra; they must match row "
                "by row."
            )
        yield from array_chunks(path, ids, flux, error, self._grid(path, flux.shape[1]), bad, wanted)

    def labels(self, bad: BadRows) -> LabelTable:
        """The labels of the table."""
        return read_label_table(
            self.labels_table,
            bad,
            self.columns,
            self.units,
            self.id_column,
            keys="archive",
            keep_columns=self.keep_columns,
        )

    def _grid(self, path: Path, n_pixels: int) -> np.ndarray:
        if self.wavelength is None:
            return in_vacuum(
                linear_grid(n_pixels, self.grid_start, self.grid_step),
                self.medium,
                "archive.grid_start",
                "archive.medium",
            )
        wavelength = nanometres(load_array(self.wavelength, 1), self.wavelength_unit, self.wavelength)
        if len(wavelength) != n_pixels:
            raise SpectangleError(
                f"{self.wavelength} has {len(wavelength)} wavelengths and {path} has {n_pixels} pixels; they must "
                "match."
            )
        check_range(wavelength, self.wavelength, key="archive.wavelength_unit")
        return in_vacuum(wavelength, self.medium, self.wavelength, "archive.medium")


def load_array(path: str | Path, ndim: int | None) -> np.ndarray:
    """Map a .npy array of numbers, of a number of dimensions (None: any).

    Raises:
        SpectangleError: The file is missing, holds pickled objects, or has another number of dimensions.
    """
    if not Path(path).is_file():
        raise SpectangleError(f"There is no file {path}; check the path of the array.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SpectangleError(
            f"{path} cannot be read as an array ({error}); save it with np.save as plain numbers, without pickled "
            "objects."
        ) from None
    if ndim is not None and array.ndim != ndim:
        raise SpectangleError(f"{path} has shape {array.shape}; an array of {ndim} dimension(s) was expected.")
    return array


def array_chunks(
    path: Path, ids, flux, error, wavelength, bad: BadRows, wanted: np.ndarray | None
) -> Iterator[SpectraChunk]:
    """Yield rows of arrays as chunks, after a look at ids [N] and at the Ca II line."""
    check_not_rounded(ids, f"{path}: its ids")
    check_vacuum(wavelength, as_flux(flux[:256], str(path)), str(path), "archive.medium")
    for start in range(0, len(ids), CHUNK):
        rows = slice(start, start + CHUNK)
        bad.note(ids[rows])
        chunk = SpectraChunk(
            path=Path(path),
            row=np.arange(start, start + len(ids[rows])) + 1,
            source_id=ids[rows],
            flux=as_flux(flux[rows], str(path)),
            flux_error=None if error is None else as_flux(error[rows], str(path)),
            wavelength=wavelength,
        )
        yield chunk.keep(chunk.source_id != NO_ID if wanted is None else positions_in(chunk.source_id, wanted) >= 0)
