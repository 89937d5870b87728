"""One grid for spectra of many: their own if they share it, else the wavelengths that all have."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from spectangle.archives.spectra.resample import Pixels
from spectangle.errors import SpectangleError

__all__ = ["common_grid"]


def common_grid(pixels: Pixels, grids: Iterable[tuple[Path, np.ndarray]]) -> Pixels:
    """Fill in what pixels.start, step and number leave open.

    Spectra on one grid keep it (method none). Else start is the largest first wavelength, step the median of the median
    steps, and the last pixel the last that all spectra have.

    Raises:
        SpectangleError: There is no spectrum, or no wavelength that all have.
    """
    first: list[tuple[float, Path]] = []
    last: list[tuple[float, Path]] = []
    steps, one, same = [], None, True
    for path, grid in grids:
        same &= one is None or np.array_equal(grid, one)
        one = grid
        first.append((float(grid[0]), path))
        last.append((float(grid[-1]), path))
        steps.append(float(np.median(np.diff(grid))))
    if one is None:
        return pixels
    if same and pixels.start is pixels.step is pixels.number is None:
        return replace(pixels, method="none")
    start = pixels.start if pixels.start is not None else max(first)[0]
    step = pixels.step if pixels.step is not None else float(f"{np.median(steps):.5g}")
    number = pixels.number if pixels.number is not None else int((min(last)[0] - start) / step + 1e-6) + 1
    if number < 2:
        raise SpectangleError(
            f"No range of wavelengths is common to all spectra: {max(first)[1]} begins at {max(first)[0]:g} nm "
            f"and {min(last)[1]} ends at "
            f"{min(last)[0]:g} nm. Leave one out, or state the grid: pixels.start, pixels.step, pixels.number."
        )
    return replace(pixels, start=start, step=step, number=number)
