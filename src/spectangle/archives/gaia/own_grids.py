"""Stars of one file that do not share a grid: each chunk has the stars of one.

Shapes: n stars, P pixels.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from spectangle.archives.spectra.chunk import SpectraChunk
from spectangle.survey.source_ids import positions_in
from spectangle.survey.wavelengths import check_range, nanometres

__all__ = ["RVS_RANGE", "chunks_by_grid", "only_wanted"]

RVS_RANGE = (840.0, 880.0)  # nm; the window of the instrument, whatever the grid of a release
SAME = 6  # digits after the point of nm within which wavelengths agree


def only_wanted(ids: np.ndarray, wanted: np.ndarray | None) -> np.ndarray:
    """Mask [n] of the stars that are wanted; None wants all."""
    return np.ones(len(ids), dtype=bool) if wanted is None else positions_in(ids, wanted) >= 0


def chunks_by_grid(chunk: SpectraChunk, grids: np.ndarray, unit: Any = None) -> Iterator[SpectraChunk]:
    """Yield the stars of a chunk with their wavelengths, those of one grid together, in the order of the file.

    Arguments:
        chunk: Stars whose wavelengths are still to be set.
        grids: Their wavelengths [n, P] as the file has them.
        unit: Of the wavelengths; None: nm.

    Raises:
        SpectangleError: Wavelengths do not increase, are missing, or lie elsewhere than RVS spectra do.
    """
    rounded = np.round(grids, SAME)
    left = np.ones(len(chunk), dtype=bool)
    while left.any():
        first = int(np.argmax(left))
        same = left & (rounded == rounded[first]).all(axis=1)
        same[first] = True  # also where a wavelength is NaN
        where = str(chunk.path) if same.all() else f"{chunk.path}, star {chunk.source_id[first]}"
        wavelength = nanometres(grids[first], unit, where)
        check_range(wavelength, where, RVS_RANGE)
        yield replace(chunk.keep(same), wavelength=wavelength)
        left &= ~same
