"""The survey file: spectra and labels of a set of stars in one HDF5 file, read and written in pieces.

Shapes: N stars, P pixels.

    flux            [N, P] float32      normalised flux; NaN = masked pixel
    flux_error      [N, P] float32      optional
    wavelength      [P]    float64      attributes unit = nm, medium = vacuum
    source_id       [N]    int64        never a float: Gaia ids need 63 bits
    labels/<name>   [N]    float32      attribute unit
    label_errors/<name>, columns/<name> optional, one value per star; text is UTF-8

File attributes: origin, release, created_by, content_hash.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.errors import SpectangleError
from spectangle.survey.format import ContentHasher, open_survey, star_datasets, validate

__all__ = ["Survey"]


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
        self._file = open_survey(self.path)
        try:
            validate(self.path, self._file)
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
        """Any other value per star [N]; text as bytes in UTF-8."""
        values = self._dataset("columns", name)[:]
        return values.astype(np.bytes_) if values.dtype.kind == "O" else values

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
        hasher = ContentHasher()
        hasher.update("wavelength", self.wavelength)
        for name, dataset in star_datasets(self._file):
            for start, stop in self.chunks():
                hasher.update(name, dataset[start:stop])
        if hasher.hexdigest() != self.content_hash:
            raise SpectangleError(
                f"{self.path} does not have the content that it was written with (content_hash differs): it was "
                "damaged or edited; write it again."
            )
