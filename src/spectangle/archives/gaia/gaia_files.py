"""Gaia RVS files on disk, of any form, as a source of spectra."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import glob
from pathlib import Path

import numpy as np

from spectangle.archives.gaia.checksum import MD5_SUMS, verify_md5
from spectangle.archives.gaia.gaia_datalink import SUFFIXES, no_rvs, read_gaia
from spectangle.archives.labels.label_table import LabelTable
from spectangle.archives.spectra.chunk import SpectraChunk
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.errors import SpectangleError
from spectangle.survey.wavelengths import linear_grid

__all__ = ["GaiaFiles"]

GROUP_BYTES, GROUP_FILES = 32 << 20, 256  # DataLink INDIVIDUAL files are many and small: they go in groups
COLUMNS = {"source_id": "source_id", "flux": "flux", "flux_error": "flux_error", "wavelength": "wavelength"}


@dataclass(frozen=True)
class GaiaFiles:
    """Bulk files and DataLink downloads of Gaia RVS mean spectra.

    Arguments:
        spectra: A file, a folder (searched with its sub-folders) or a pattern such as ``rvs/RvsMeanSpectrum_*.csv.gz``.
        columns: Names in the files, where a release differs: {source_id, flux, flux_error, wavelength: name}.
        grid_start, grid_step: Wavelengths in nm of files that have none.
        verify_md5: Compare each file with ``_MD5SUM.txt`` beside it.
        release: Data release, kept in the survey.
    """

    spectra: str
    columns: dict[str, str] = field(default_factory=dict)
    grid_start: float = 846.0
    grid_step: float = 0.01
    verify_md5: bool = True
    release: str = "Gaia DR3"
    besides: list[str] = field(default_factory=list, init=False, repr=False)  # tables of labels that may lie among them

    @property
    def scales_to_median(self) -> bool:
        return True

    @property
    def origin(self) -> str:
        return f"{self.release} RVS"

    def work(self) -> list[list[Path]]:
        """Files in groups, each the work of one process at a time.

        Raises:
            SpectangleError: There is no file.
        """
        groups: list[list[Path]] = []
        size = GROUP_BYTES
        for path in _files(self.spectra, self.besides)[0]:
            if size + path.stat().st_size > GROUP_BYTES or len(groups[-1]) >= GROUP_FILES:
                groups.append([])
                size = 0
            groups[-1].append(path)
            size += path.stat().st_size
        return groups

    def read(self, path: Path, bad: BadRows, wanted: np.ndarray | None = None) -> Iterator[SpectraChunk]:
        """Yield the wanted stars of one file in chunks."""
        if self.verify_md5:
            verify_md5(path)
        yield from read_gaia(
            path,
            bad,
            COLUMNS | dict(self.columns),
            partial(linear_grid, start=self.grid_start, step=self.grid_step),
            wanted,
        )

    def left_out(self, chosen: np.ndarray, made: np.ndarray) -> list[str]:
        """A sentence for each file that is no spectrum by its name."""
        return _files(self.spectra, self.besides)[1]

    def labels(self, bad: BadRows) -> LabelTable | None:
        """None: Gaia files hold no labels."""
        return None


def _files(spectra: str, besides: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
    """The files of spectra, and a sentence for each other one; a file that is named alone is taken whatever its
    ending.
    """
    path = Path(spectra)
    if path.is_file():
        return [path], []
    found = sorted(path.rglob("*")) if path.is_dir() else [Path(name) for name in sorted(glob(spectra, recursive=True))]
    other = {Path(name).resolve() for name in besides}
    reasons = {
        file: "is a table of labels" if file.resolve() in other else no_rvs(file.name)
        for file in found
        if file.is_file()
    }
    files = [file for file, why in reasons.items() if why is None]
    if not files:
        endings = ", ".join(SUFFIXES)
        raise SpectangleError(
            f"spectra={spectra} names no spectra: it must be a file, a folder or a pattern of files ending in "
            f"{endings} (or .gz)."
        )
    return files, [f"{file}: {why}" for file, why in reasons.items() if why and file.name != MD5_SUMS]
