"""Fig. 2 of the paper: a star's spectrum, its latent, the spectra decoded from it with other labels, and
what these change.
"""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from spectangle.errors import SpectangleError
from spectangle.figures.style import minus, symbol
from spectangle.files import whole_file
from spectangle.generation.parents import Parents
from spectangle.inference.trained import TrainedModel
from spectangle.metrics import number
from spectangle.survey.spectral_lines import LINES

__all__ = ["draw_generated"]

MOST = 12  # spectra in one picture
INK, GREY, ACCENT = "#1d2733", "#8a94a0", "#c2410c"


def draw_generated(model: TrainedModel, parents: Parents, changed: np.ndarray, path: Path) -> Path:
    """Draw the first star and its changed spectra, labels [G, K], to a PNG; of many, MOST that are spread over the
    grid.

    Raises:
        SpectangleError: It cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 10), layout="constrained")
    top, middle, bottom, difference = figure.subplots(4, 1, height_ratios=[2, 1, 2.6, 1.6])
    top.plot(model.wavelength, parents.flux[0], color=INK, lw=0.8)
    top.set_title(
        textwrap.fill(f"Star {parents.source_id[0]}: {', '.join(_words(model, parents.labels[0]))}", 130),
        loc="left",
        fontsize=10,
    )
    middle.bar(np.arange(parents.latent.shape[1]), parents.latent[0], color=GREY)
    middle.set_title("Its latent", loc="left", fontsize=10)
    middle.set(xlabel="latent number", ylabel="value")
    _draw_changed(model, parents, changed, bottom, difference)
    for axes, words in ((top, "flux / continuum"), (bottom, "flux / continuum"), (difference, "difference")):
        axes.set_ylabel(words)
        _draw_calcium(axes, model.wavelength)
    figure.align_ylabels([top, bottom, difference])
    difference.set_xlabel("vacuum wavelength [nm]")
    figure.legend(*bottom.get_legend_handles_labels(), fontsize=8, ncols=4, loc="outside lower center", frameon=False)
    try:
        with whole_file(path) as part:
            figure.savefig(part, dpi=120, format="png")
    except OSError as error:
        raise SpectangleError(
            f"{path} could not be written ({error}); the spectra are there. Free some space, or say figure=false."
        ) from error
    return path


def _draw_changed(model: TrainedModel, parents: Parents, changed: np.ndarray, axes: Any, below: Any) -> None:
    rows = np.unique(np.linspace(0, len(changed) - 1, min(MOST, len(changed))).round().astype(int))
    latent, own = parents.latent[:1], parents.labels[:1]
    reconstructed = model.decode(latent, own)[0]
    axes.plot(model.wavelength, reconstructed, color=GREY, lw=1.2, label="reconstructed with its own labels")
    below.axhline(0, color=GREY, lw=1.2)
    generated = model.decode(np.repeat(latent, len(rows), axis=0), changed[rows])
    colours = matplotlib.colormaps["plasma"](np.linspace(0.1, 0.85, len(rows))) if len(rows) > 1 else [ACCENT]
    for labels, flux, colour in zip(changed[rows], generated, colours, strict=True):
        axes.plot(model.wavelength, flux, color=colour, lw=1, label=_changes(model, own[0], labels))
        below.plot(model.wavelength, flux - reconstructed, color=colour, lw=0.8)
    shown = f" ({len(rows)} of {len(changed)} sets)" if len(rows) < len(changed) else ""
    axes.set_title(f"Decoded from the same latent with other labels{shown}", loc="left", fontsize=10)
    below.set_title("What the other labels change: minus the reconstruction", loc="left", fontsize=10)


def _draw_calcium(axes: Any, grid: np.ndarray) -> None:
    axes.margins(x=0.01)
    for species, wavelength, _ in LINES:
        if species == "Ca II" and grid[0] < wavelength < grid[-1]:
            axes.axvline(wavelength, color=GREY, lw=0.6, ls=":")


def _words(model: TrainedModel, labels: np.ndarray) -> list[str]:
    return [
        f"{symbol(name)} {minus(number(value, model.units[name]))} {model.units[name]}".rstrip()
        for name, value in zip(model.labels, labels, strict=True)
    ]


def _changes(model: TrainedModel, old: np.ndarray, new: np.ndarray) -> str:
    """The labels that differ."""
    return (
        ", ".join(words for words, a, b in zip(_words(model, new), old, new, strict=True) if a != b)
        or "the same labels"
    )
