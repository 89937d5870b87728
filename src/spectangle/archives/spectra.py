"""A chunk of spectra on its way from a file to a survey, what in it is no flux, and what makes a row of it bad.

Shapes: n spectra in the chunk, P pixels.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np

from spectangle.archives.bad_rows import BadRows
from spectangle.errors import SpectangleError

__all__ = ["SpectraChunk", "as_flux", "drop_bad_rows", "without_fill"]

FILL = (-90.0, 1e15)  # outside lie fill values (-99, -9999, 1e20 ...): no normalised flux is there, nor its error


@dataclass(frozen=True)
class SpectraChunk:
    """Spectra of n stars from one file. Fill values among them become NaN, whatever file they come from.

    Arguments:
        path: The file, for sentences.
        row: Row of each star in the file [n], from 1.
        source_id: Gaia ids [n] int64.
        flux: Normalised flux [n, P], NaN where missing.
        flux_error: Its error [n, P], NaN where missing; None where the archive has none.
        wavelength: Vacuum wavelengths [P] in nm.
    """

    path: Path
    row: np.ndarray
    source_id: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray | None
    wavelength: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "flux", without_fill(self.flux))
        if self.flux_error is not None:
            object.__setattr__(self, "flux_error", without_fill(self.flux_error))

    def __len__(self) -> int:
        return len(self.source_id)

    def keep(self, mask: np.ndarray) -> "SpectraChunk":
        """The stars of a mask [n] only."""
        if mask.all():
            return self
        error = None if self.flux_error is None else self.flux_error[mask]
        return replace(self, row=self.row[mask], source_id=self.source_id[mask], flux=self.flux[mask], flux_error=error)


def as_flux(values: Any, where: str) -> np.ndarray:
    """Flux or errors [..., P] as float32, whatever holds them; NaN where they are masked or fill values.

    Raises:
        SpectangleError: They are no numbers, or have a unit.
    """
    if str(getattr(values, "unit", None) or "") and isinstance(values, u.Quantity):
        raise SpectangleError(
            f"{where} has the unit {values.unit}; flux over its continuum has none. Normalise the spectra."
        )
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else getattr(values, "mask", None)
    plain = np.asarray(getattr(values, "unmasked", np.ma.getdata(values)))
    if plain.dtype.kind not in "fiub":
        raise SpectangleError(f"{where} is of type {plain.dtype}; numbers were expected.")
    plain = without_fill(plain)
    return plain if mask is None or np.shape(mask) != plain.shape else np.where(mask, np.float32(np.nan), plain)


def without_fill(values: np.ndarray) -> np.ndarray:
    """Normalised flux or errors [..., P] as float32, NaN in place of fill values."""
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = (values < FILL[0]) | (values > FILL[1])
        plain = values.astype(np.float32, copy=False)
    return np.where(wrong, np.float32(np.nan), plain) if wrong.any() else plain


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
