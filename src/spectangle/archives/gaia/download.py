"""Download Gaia RVS spectra through DataLink with astroquery, in chunks, with resume and retries.

DataLink takes fewer than 5,000 sources a request. Each chunk becomes a zip file whose name carries a digest of its ids.
The
ids in the file are compared with those that were asked for: what is missing is asked for again, by itself. The zip
file's comment keeps how many came, so that a file is read for that only once. Only stars with has_rvs are asked for.
"""

import hashlib
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.archives.gaia.gaia_datalink import read_gaia
from spectangle.archives.gaia.gaia_files import COLUMNS, GaiaFiles
from spectangle.archives.labels.label_table import LabelTable
from spectangle.archives.labels.plain_labels import ids_of
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.archives.tables.columns import find_column, require_columns
from spectangle.archives.tables.table_file import read_table
from spectangle.console import console, progress_bar
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import NO_ID, as_source_ids
from spectangle.survey.wavelengths import linear_grid

__all__ = ["GaiaDataLink"]

LIMIT = 5000  # of DataLink, exclusive
QUERY_IDS = 1500  # ids in a TAP query; a synchronous answer holds 2,000 rows


@dataclass(frozen=True)
class GaiaDataLink:
    """Spectra of a list of stars from the Gaia archive.

    Arguments:
        ids: Table with a column source_id, any form; stars whose column has_rvs (if any) is false are left out.
        folder: Where the zip files go; they stay, and later runs use them.
        chunk: Sources a request, below 5,000.
        release: For instance ``Gaia DR3``.
        retrieval_type: ``RVS`` for DR3, ``MEAN_SPECTRUM_RVS`` for DR4.
        data_structure: ``RAW`` (one file of all stars) or ``INDIVIDUAL``; DR4: ``DATAMODEL_GAIA``,
            ``DATAMODEL_STANDARD``.
        format: ``fits`` (read a hundred times faster than ``votable``), ``votable``, ``csv`` or ``ecsv``.
        retries: Attempts a chunk.
        pause: Seconds before the second attempt; doubled for each further one.
        source_table: Table that is asked which stars have spectra.
        server: Address of the archive.
        columns: See :class:`GaiaFiles`.
        id_column: Column of `ids`.
    """

    ids: str
    folder: str = "gaia_rvs"
    chunk: int = 2000
    release: str = "Gaia DR3"
    retrieval_type: str = "RVS"
    data_structure: str = "RAW"
    format: str = "fits"
    retries: int = 4
    pause: float = 5.0
    source_table: str = "gaiadr3.gaia_source"
    server: str = "https://gea.esac.esa.int/"
    columns: dict[str, str] = field(default_factory=dict)
    id_column: str = "source_id"
    absent: list[int] = field(default_factory=list, init=False, repr=False)  # stars that the archive did not send

    def __post_init__(self):
        if not 0 < self.chunk < LIMIT:
            raise SpectangleError(f"archive.chunk={self.chunk}: DataLink takes 1 to {LIMIT - 1} sources a request.")

    @property
    def scales_to_median(self) -> bool:
        return True

    @property
    def origin(self) -> str:
        return self._files().origin

    def work(self) -> list[list[Path]]:
        """Download what is missing; return the files in groups."""
        self.download()
        return self._files().work()

    def read(self, path: Path, bad: BadRows, wanted: np.ndarray | None = None):
        """Yield the wanted stars of one downloaded file."""
        return self._files().read(path, bad, wanted)

    def labels(self, bad: BadRows) -> LabelTable | None:
        """None: the archive sends no labels."""
        return None

    def download(self) -> list[Path]:
        """Download every star that is not there yet; return the files.

        Raises:
            SpectangleError: The list cannot be used, no star has a spectrum, or the archive does not answer.
        """
        ids = self.stars()
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        chunks = [ids[start : start + self.chunk] for start in range(0, len(ids), self.chunk)]
        paths, absent = [], []
        with progress_bar() as progress:
            for number, chunk in progress.track(list(enumerate(chunks)), description="downloading"):
                found, missing = self._complete(number, chunk)
                paths += found
                absent += missing.tolist()
        self.absent[:] = absent
        if absent:
            console.print(
                f"The archive sent no spectrum of {len(absent)} of {len(ids)} stars, such as {absent[0]}. They "
                "are asked for again by the next run.",
                markup=False,
            )
        return paths

    def left_out(self, chosen: np.ndarray, made: np.ndarray) -> list[str]:
        """A sentence for each star that the archive did not send, and each other file in the folder."""
        absent = [f"{self.ids}: the archive sent no spectrum of star {star}" for star in self.absent]
        return absent + self._files().left_out(chosen, made)

    def _complete(self, number: int, chunk: np.ndarray) -> tuple[list[Path], np.ndarray]:
        """The files of a chunk's stars, after asking for what is missing; and the ids that did not come in all
        attempts.
        """
        paths: list[Path] = []
        missing = chunk
        for attempt in range(self.retries):
            path = self._path(number, missing)
            if not zipfile.is_zipfile(path):
                if attempt > 1:
                    time.sleep(self.pause * 2 ** (attempt - 2))
                self._retrying(f"chunk {path.name}", lambda asked=missing, path=path: self._fetch(asked, path))
            came = self._ids_in(path, missing)
            if len(came):
                paths.append(path)
            else:
                path.unlink()
            missing = np.setdiff1d(missing, came)
            if not len(missing):
                break
        if not paths:
            raise SpectangleError(
                f"The Gaia archive at {self.server} sent none of {len(chunk)} spectra, of star {chunk[0]} and "
                f"others, in {self.retries} attempts. "
                f" Do they have {self.retrieval_type} spectra in {self.release}? Else run the same command again later."
            )
        return paths, missing

    def _ids_in(self, path: Path, asked: np.ndarray) -> np.ndarray:
        """Which of the ids [n] that were asked for are in a file; one that had them all is not read again."""
        whole = f"all {len(asked)} stars".encode()
        with zipfile.ZipFile(path) as archive:
            if archive.comment == whole:
                return asked
        chunks = read_gaia(path, BadRows(len(asked)), COLUMNS | dict(self.columns), linear_grid, asked)
        came = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(chunk.source_id for chunk in chunks)]))
        if len(came) == len(asked):
            with zipfile.ZipFile(path, "a") as archive:
                archive.comment = whole
        return came

    def stars(self) -> np.ndarray:
        """Sorted ids [n] of the stars in the list that have a spectrum."""
        table = read_table(self.ids, [self.id_column])
        ids = ids_of(table, self.ids, self.id_column, "archive")
        table, ids = table[ids != NO_ID], ids[ids != NO_ID]
        if has_rvs := find_column("has_rvs", table.colnames):
            ids = ids[
                np.array([str(value).strip().lower() in ("true", "t", "1") for value in table[has_rvs]], dtype=bool)
            ]
        else:
            ids = self._with_spectra(np.unique(ids))
        if not len(ids):
            raise SpectangleError(
                f"{self.ids}: none of its stars has an RVS spectrum in {self.release} (has_rvs); nothing to download."
            )
        return np.unique(ids)

    def _with_spectra(self, ids: np.ndarray) -> np.ndarray:
        tap = self._service("tap-server")
        kept: list[int] = []
        for start in range(0, len(ids), QUERY_IDS):
            listed = ",".join(map(str, ids[start : start + QUERY_IDS]))
            query = f"SELECT source_id FROM {self.source_table} WHERE has_rvs = 'true' AND source_id IN ({listed})"
            answer = self._retrying(
                "the list of stars with has_rvs", lambda query=query: tap.launch_job(query).get_results()
            )
            column = require_columns({"id": "source_id"}, answer.colnames, "the archive's answer")["id"]
            kept += as_source_ids(answer[column], "the archive's answer").tolist()
        return np.array(kept, dtype=np.int64)

    def _fetch(self, ids: np.ndarray, path: Path) -> None:
        beside = path.with_suffix(".part")
        request = {
            "ID": ",".join(map(str, ids)),
            "RELEASE": self.release,
            "DATA_STRUCTURE": self.data_structure,
            "FORMAT": self.format,
            "RETRIEVAL_TYPE": self.retrieval_type,
            "VALID_DATA": "false",
            "USE_ZIP_ALWAYS": "true",
        }
        self._service("data-server").load_data(params_dict=request, output_file=str(beside))
        if not zipfile.is_zipfile(beside):
            raise OSError(f"the archive sent no zip file but '{beside.read_bytes()[:80].decode('utf-8', 'replace')}'")
        beside.replace(path)

    def _service(self, context: str) -> Any:
        try:
            from astroquery.utils.tap.core import TapPlus
        except ModuleNotFoundError:
            raise SpectangleError(
                "A download needs astroquery, which is not installed: pip install 'spectangle[archives]'."
            ) from None
        names: dict[str, Any] = {"tap_context": "tap", "data_context": "data", "datalink_context": "datalink"}
        return TapPlus(url=self.server, server_context=context, use_names_over_ids=True, **names)

    def _retrying(self, what: str, attempt) -> Any:
        problem = None
        for number in range(self.retries):
            try:
                return attempt()
            except SpectangleError:
                raise
            except Exception as error:  # requests, sockets and astroquery raise many kinds
                problem = error
                if number + 1 < self.retries:
                    time.sleep(self.pause * 2**number)
        said = " ".join(str(problem).split())
        raise SpectangleError(
            f"The Gaia archive at {self.server} did not send {what} in {self.retries} attempts ({said[:200]}). "
            "Run the same command again later: chunks that are there are not asked for again."
        ) from None

    def _path(self, number: int, ids: np.ndarray) -> Path:
        request = f"{self.release} {self.retrieval_type} {self.data_structure} {self.format} {list(map(int, ids))}"
        return Path(self.folder) / f"rvs_{number:05d}_{hashlib.sha256(request.encode()).hexdigest()[:12]}.zip"

    def _files(self) -> GaiaFiles:
        return GaiaFiles(self.folder, self.columns, release=self.release)
