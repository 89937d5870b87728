"""A chunk of spectra on its way from a file to a survey, what in it is no flux, and what makes a row of it bad.

Shapes: n spectra in the chunk, P pixels.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spectangle.archives.tables.bad_rows import BadRows
from spectangle.errors import SpectangleError
from spectangle.survey.given import as_flux
from spectangle.survey.source_ids import as_source_ids
from spectangle.survey.wavelengths import nanometres

__all__ = ["SpectraChunk", "drop_bad_rows"]


@dataclass(frozen=True)
class SpectraChunk:
    """Spectra of n stars from one file. Masked pixels and fill values become NaN, whatever file they come from.

    Arguments:
        path: The file, for sentences.
        row: Row of each star in the file [n], from 1.
        source_id: Gaia ids [n] int64.
        flux: Normalised flux [n, P], NaN where missing.
        flux_error: Its error [n, P], NaN where missing; None where the archive has none.
        wavelength: Vacuum wavelengths [P] in nm, increasing.

    Raises:
        SpectangleError: The arrays do not belong together, ids are floats, or the flux has a unit.
    """

    path: Path
    row: np.ndarray
    source_id: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray | None
    wavelength: np.ndarray

    def __post_init__(self):
        where = str(self.path)
        checked: dict[str, np.ndarray] = {
            "row": np.atleast_1d(self.row),
            "source_id": as_source_ids(self.source_id, f"{where}, source_id"),
            "flux": as_flux(self.flux, f"{where}, flux"),
            "wavelength": nanometres(self.wavelength, None, where),
        }
        if self.flux_error is not None:
            checked["flux_error"] = as_flux(self.flux_error, f"{where}, flux_error")
        for name, values in checked.items():
            object.__setattr__(self, name, values)
        n, p = len(checked["source_id"]), len(checked["wavelength"])
        expected = {"row": (n,), "flux": (n, p), "flux_error": (n, p)}
        for name in checked.keys() & expected.keys():
            if checked[name].shape != expected[name]:
                raise SpectangleError(
                    f"{where}: {name} came with the shape {checked[name].shape}, beside {n} source_id and {p} "
                    f"wavelengths; {expected[name]} was expected. A single spectrum is flux[None]."
                )

    def __len__(self) -> int:
        return len(self.source_id)

    def keep(self, mask: np.ndarray) -> "SpectraChunk":
        """The stars of a mask [n] only."""
        if mask.all():
            return self
        error = None if self.flux_error is None else self.flux_error[mask]
        return replace(self, row=self.row[mask], source_id=self.source_id[mask], flux=self.flux[mask], flux_error=error)


def drop_bad_rows(chunk: SpectraChunk, bad: BadRows, nonpositive_error: str = "skip_star") -> SpectraChunk:
    """Drop stars that have no good pixel, or a flux_error of zero or below.

    Arguments:
        chunk: Spectra as read.
        bad: Where to count them.
        nonpositive_error: ``skip_star`` drops the star; ``mask_pixel`` only masks these pixels.

    Raises:
        SpectangleError: More bad rows than allowed.
    """
    good = np.isfinite(chunk.flux)
    keep = np.ones(len(chunk), dtype=bool)
    if chunk.flux_error is not None:
        error = chunk.flux_error
        with np.errstate(invalid="ignore"):
            wrong = error <= 0
        if nonpositive_error == "mask_pixel":
            error = np.where(wrong, np.float32(np.nan), error)
            chunk = replace(chunk, flux_error=error)
        else:
            for index in np.flatnonzero(wrong.any(axis=1)):
                pixel = np.argmax(wrong[index])
                reason = f"flux_error is {error[index, pixel]:g} at pixel {pixel}, and errors must be positive"
                bad.skip(
                    chunk.path,
                    int(chunk.row[index]),
                    f"{reason} (pixels.nonpositive_error=mask_pixel masks such pixels instead)",
                )
                keep[index] = False
        good &= np.isfinite(error)
    for index in np.flatnonzero(~good.any(axis=1) & keep):
        bad.skip(chunk.path, int(chunk.row[index]), f"star {chunk.source_id[index]} has no good pixel")
        keep[index] = False
    return chunk.keep(keep)
