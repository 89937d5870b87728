"""Any 1-D spectra, one file a star, with a table of labels that names the stars."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from spectangle.archives.labels.label_table import LabelTable
from spectangle.archives.spectra.chunk import SpectraChunk
from spectangle.archives.spectra.common_grid import common_grid
from spectangle.archives.spectra.continuum import Continuum
from spectangle.archives.spectra.fits_spectrum import read_fits
from spectangle.archives.spectra.left_out import Star, why_left_out
from spectangle.archives.spectra.name_join import TableKeys, exclude_names, join_by_name
from spectangle.archives.spectra.resample import Pixels
from spectangle.archives.spectra.spectrum import Spectrum, normalised
from spectangle.archives.spectra.spectrum_form import SpectrumForm, Unstated
from spectangle.archives.spectra.star_files import find_spectra, is_fits, name_in_file, name_of_file
from spectangle.archives.spectra.table_spectrum import read_text
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.archives.tables.fits_file import open_fits
from spectangle.archives.tables.table_file import read_table
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import positions_in

__all__ = ["Spectra1D"]

GROUP_FILES = 64


@dataclass(frozen=True)
class Spectra1D:
    """FITS images, FITS tables and text files of one spectrum each.

    Arguments:
        spectra: Folder, pattern, list of files or file that lists them, see :func:`star_files.find_spectra`.
        labels_table: Table of labels with a row per star.
        label_columns, units: {label: column}, {label: unit}, see :func:`label_table.labels_of`.
        name_keyword: Keyword of the file's header that has the star's name; None: the file's name has it.
        name_pattern: Regular expression whose group is the star's name in a file's name; None: all of it but the
            ending.
        match_column: Column of the table that has these names; None: the first of name, star, object, file, source_id
            that is there.
        id_column: Column of the table with ids; where it has none, ids are made of the names, see
            :func:`names.name_id`.
        keep_columns: Other columns of the table that the survey keeps.
        form: Units, medium and columns of the files.
        continuum: What each spectrum is divided by.
        window: First and last wavelength that are kept, in nm in vacuum; None: all.
        exclude: Names of stars to leave out.
        title: Where the spectra come from, kept in the survey; default: the name of the folder.
        release: Kept in the survey.
    """

    spectra: str | Sequence[str]
    labels_table: str | None = None
    label_columns: Mapping[str, str] | None = None
    units: Mapping[str, str] | None = None
    name_keyword: str | None = None
    name_pattern: str | None = None
    match_column: str | None = None
    id_column: str = "source_id"
    keep_columns: Sequence[str] = ()
    form: SpectrumForm = field(default_factory=SpectrumForm)
    continuum: Continuum = field(default_factory=Continuum)
    window: Sequence[float] | None = None
    exclude: Sequence[str] = ()
    title: str | None = None
    release: str = "unknown"

    def __post_init__(self):
        if self.labels_table is None:
            raise SpectangleError(
                "No labels were given; name the table: spectangle prepare archive=spectra1d spectra=... "
                "labels.table=stars.csv."
            )
        try:
            re.compile(self.name_pattern or "")
        except re.error as error:
            raise SpectangleError(
                f"archive.name_pattern={self.name_pattern} is no regular expression ({error})."
            ) from None

    @property
    def origin(self) -> str:
        return self.title or (Path(self.spectra).name if isinstance(self.spectra, str) else "spectra1d")

    @property
    def label_keys(self) -> dict[str, str]:
        """The options of ``labels`` that its config takes, and what is written instead of another."""
        taken = {key: f"labels.{key}" for key in ("table", "columns", "units", "keep_columns")}
        return taken | {"id_column": "archive.id_column=..."}

    @cached_property
    def _found(self) -> tuple[list[Path], list[str]]:
        return find_spectra(self.spectra, [self.labels_table])

    @cached_property
    def _names(self) -> tuple[dict[Path, str], list[str]]:
        """{file: name of its star}, and a sentence for each file that names none."""
        names, nameless = {}, []
        for path in self._found[0]:
            try:
                name = (
                    name_in_file(path, self.name_keyword)
                    if self.name_keyword
                    else name_of_file(path, self.name_pattern)
                )
                if name is None:
                    what = (
                        f"has no keyword {self.name_keyword}"
                        if self.name_keyword
                        else f"does not match name_pattern={self.name_pattern}"
                    )
                    nameless.append(f"{path}: {what}, so that its star is unknown")
                else:
                    names[path] = name
            except SpectangleError as error:
                nameless.append(str(error))
        return names, nameless

    @cached_property
    def _joined(self) -> tuple[LabelTable, dict[Path, int], list[str]]:
        """Labels of the stars that have files, {file: id}, and a sentence on rows without file."""
        table = read_table(str(self.labels_table))
        keys = TableKeys(self.match_column, self.id_column, self.label_columns, self.units, self.keep_columns)
        return join_by_name(table, str(self.labels_table), self._names[0], keys)

    @property
    def star_names(self) -> dict[int, str]:
        """Names of the stars that have files, by id."""
        return {number: self._names[0][path] for path, number in self._joined[1].items()}

    def work(self) -> list[list[Path]]:
        """Files in groups, each the work of one process at a time."""
        files = list(self._joined[1])
        return [files[i : i + GROUP_FILES] for i in range(0, len(files), GROUP_FILES)]

    def labels(self, bad: BadRows) -> LabelTable:
        """The labels of the stars that have files."""
        return exclude_names(self._joined[0], self.exclude)

    def read(self, path: Path, bad: BadRows, wanted: np.ndarray | None = None) -> Iterator[SpectraChunk]:
        """Yield the star of one file, if it is wanted, divided by its continuum; a file that cannot be read is a bad
        row.
        """
        number = np.array([self._joined[1][path]])
        bad.note(number)
        if wanted is not None and positions_in(number, wanted)[0] < 0:
            return
        try:
            spectrum = normalised(self._spectrum(path), self.continuum, self.window, str(path))
        except Unstated:
            raise
        except SpectangleError as error:
            bad.add(1, [str(error).removesuffix(".")])
            return
        yield SpectraChunk(path, np.ones(1, dtype=int), number, spectrum.flux, spectrum.error, spectrum.wavelength)

    def fit_pixels(self, pixels: Pixels, wanted: np.ndarray | None) -> Pixels:
        """The grid of pixels.method=resample that the keys leave open: the files' own if they share one, else the range
        that all wanted stars (None: all stars) have.

        Raises:
            SpectangleError: No range is common to all; two files without overlap are named.
        """
        if pixels.method != "resample" or None not in (pixels.start, pixels.step, pixels.number):
            return pixels
        return common_grid(pixels, self._grids(None if wanted is None else set(wanted.tolist())))

    def left_out(self, chosen: np.ndarray, made: np.ndarray) -> list[str]:
        """A sentence for each file that is not in the survey."""
        table, ids, alone = self._joined
        stars = [Star(str(path), self._names[0][path], number) for path, number in ids.items()]
        return (
            self._found[1]
            + self._names[1]
            + alone
            + list(why_left_out(stars, set(table.source_id.tolist()), chosen, made, str(self.labels_table)))
        )

    def _grids(self, wanted: set[int] | None) -> Iterator[tuple[Path, np.ndarray]]:
        for path, number in self._joined[1].items():
            if wanted is None or number in wanted:
                try:
                    spectrum = normalised(self._spectrum(path), Continuum(), self.window, str(path))
                except Unstated:
                    raise
                except SpectangleError:  # it is named when it is read
                    continue
                yield path, spectrum.wavelength

    def _spectrum(self, path: Path) -> Spectrum:
        if is_fits(path):
            with open_fits(path, str(path)) as hdulist:
                spectrum = read_fits(hdulist, str(path), self.form)
        else:
            spectrum, _ = read_text(path, self.form)
        return self.form.in_vacuum(spectrum, str(path))
