"""The MILES library of real stars as a source of spectra and labels.

985 stars, 3525-7500 Angstrom, FWHM 2.5 Angstrom, 0.9 Angstrom a pixel, rest frame, air: Sanchez-Blazquez et al. 2006,
MNRAS 371, 703; Falcon-Barroso et al. 2011, A&A 532, A95. Labels: Cenarro et al. 2007, MNRAS 374, 664. Cite all three.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from spectangle.archives.labels.label_table import LabelTable
from spectangle.archives.miles.miles_files import MilesFiles, find_miles
from spectangle.archives.spectra.air import air_to_vacuum
from spectangle.archives.spectra.chunk import SpectraChunk
from spectangle.archives.spectra.continuum import Continuum
from spectangle.archives.spectra.left_out import Star, why_left_out
from spectangle.archives.spectra.name_join import exclude_names
from spectangle.archives.spectra.spectrum import Spectrum, normalised
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.survey.source_ids import positions_in

__all__ = ["Miles"]

OTHER_LABELS = "archive=spectra1d archive.form.medium=air with the library's FITS files"
PAPERS = "Sanchez-Blazquez et al. 2006; Falcon-Barroso et al. 2011; labels: Cenarro et al. 2007"


@dataclass(frozen=True)
class Miles:
    """MILES in any of the forms of :func:`miles_files.find_miles`.

    Arguments:
        folder: Folder of FITS files, unzipped wheel of sdss-mangadap, the wheel itself, or folder of the prepared copy.
        labels_table: The parameter table, where it does not lie beside the spectra.
        continuum: What each spectrum is divided by.
        window: First and last wavelength that are kept, in nm in vacuum; None: all.
        exclude: Names of stars to leave out.
        release: Version of the library, kept in the survey.
    """

    folder: str
    labels_table: str | None = None
    continuum: Continuum = field(default_factory=lambda: Continuum("running_mean", 301))
    window: Sequence[float] | None = None
    exclude: Sequence[str] = ()
    release: str = "9.1"

    @property
    def origin(self) -> str:
        return "MILES"

    @property
    def cite(self) -> str:
        return PAPERS

    @property
    def label_keys(self) -> dict[str, str]:
        """What is written instead of options of ``labels``: the library's own table is of fixed columns."""
        return dict.fromkeys(("table", "columns", "units", "id_column", "keep_columns"), OTHER_LABELS)

    @cached_property
    def files(self) -> MilesFiles:
        """What is on the disk; found once in a process."""
        return find_miles(self.folder, self.labels_table)

    def work(self) -> list[list[Path]]:
        """Files in groups, each the work of one process at a time."""
        return self.files.groups

    def read(self, path: Path, bad: BadRows, wanted: np.ndarray | None = None) -> Iterator[SpectraChunk]:
        """Yield the wanted stars of one file, divided by their continuum."""
        table = self.files.table
        for numbers, air, flux in self.files.read(path):
            row = np.array([table.position.get(number, -1) for number in numbers])
            known = row >= 0
            ids = np.where(known, table.source_id[row], 0)
            bad.note(ids)
            keep = known if wanted is None else known & (positions_in(ids, wanted) >= 0)
            if not keep.any():
                continue
            spectrum = Spectrum(air_to_vacuum(air / 10, str(path)), flux[keep])
            spectrum = normalised(spectrum, self.continuum, self.window, str(path))
            yield SpectraChunk(path, row[keep] + 1, ids[keep], spectrum.flux, None, spectrum.wavelength)

    def labels(self, bad: BadRows) -> LabelTable:
        """The labels of all stars, with the names that were asked to leave out as a flag."""
        return exclude_names(self.files.table.labels(self.origin), self.exclude)

    def left_out(self, chosen: np.ndarray, made: np.ndarray) -> list[str]:
        """A sentence for each file that is not in the survey, and for each star without a file."""
        table, numbers = self.files.table, self.files.numbers
        rows = list(zip(table.names, table.miles_id, table.source_id.tolist(), strict=True))
        unknown = [
            f"{path}: spectrum {number} is not in {table.where}"
            for number, path in numbers.items()
            if number not in table.position
        ]
        lacking = [
            f"{table.where}: {name} (spectrum {number}) has no file"
            for name, number, _ in rows
            if number not in numbers
        ]
        stars = [
            Star(str(numbers[number]), f"{name} (spectrum {number})", star)
            for name, number, star in rows
            if number in numbers
        ]
        return (
            self.files.left_out
            + unknown
            + lacking
            + list(why_left_out(stars, set(table.source_id.tolist()), chosen, made, table.where))
        )
