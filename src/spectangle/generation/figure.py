"""Fig. 2 of the paper: a star's spectrum, its latent, and the spectra decoded from it with other labels."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np

from spectangle.spectral_lines import LINES

if TYPE_CHECKING:
    from spectangle.generation.generate import Parents
    from spectangle.trained import TrainedModel

__all__ = ["draw_generated"]

INK, GREY, ACCENT = "#1d2733", "#8a94a0", "#c2410c"


def draw_generated(model: "TrainedModel", parents: "Parents", changed: np.ndarray, path: Path) -> Path:
    """Draw the first star and its changed spectra, labels [G, K], to a PNG beside its name, then rename."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[2, 1, 2.6])
    reconstruction = model.decode(parents.latent[:1], parents.labels[:1])[0]
    generated = model.decode(np.repeat(parents.latent[:1], len(changed), axis=0), changed)
    top.plot(model.wavelength, parents.flux[0], color=INK, lw=0.8)
    top.set_title(f"Star {parents.source_id[0]}: {_words(model, parents.labels[0])}", loc="left", fontsize=10)
    middle.bar(np.arange(parents.latent.shape[1]), parents.latent[0], color=GREY)
    middle.set_title("Its latent", loc="left", fontsize=10)
    bottom.plot(model.wavelength, reconstruction, color=GREY, lw=1.2, label="reconstructed with its own labels")
    colours = matplotlib.colormaps["plasma"](np.linspace(0.1, 0.85, len(changed)))
    for labels, flux, colour in zip(changed, generated, colours if len(changed) > 1 else [ACCENT], strict=True):
        bottom.plot(model.wavelength, flux, color=colour, lw=1, label=_changes(model, parents.labels[0], labels))
    bottom.set_title("Decoded from the same latent with other labels", loc="left", fontsize=10)
    bottom.legend(fontsize=8, ncols=2, loc="lower left")
    for axes in (top, bottom):
        axes.set_ylabel("flux / continuum")
        axes.margins(x=0.01)
        for species, wavelength, _ in LINES:
            if species == "Ca II":
                axes.axvline(wavelength, color=GREY, lw=0.6, ls=":")
    bottom.set_xlabel("vacuum wavelength [nm]")
    part = path.with_name(path.name + ".part")
    figure.savefig(part, dpi=120, format="png")
    part.replace(path)
    return path


def _words(model: "TrainedModel", labels: np.ndarray) -> str:
    return ", ".join(_word(model, i, value) for i, value in enumerate(labels))


def _changes(model: "TrainedModel", old: np.ndarray, new: np.ndarray) -> str:
    return ", ".join(_word(model, i, new[i]) for i in range(len(new)) if old[i] != new[i]) or "the same labels"


def _word(model: "TrainedModel", i: int, value: float) -> str:
    name = model.labels[i]
    unit = model.units[name]
    return f"{name} {value:.0f} K" if unit == "K" else f"{name} {value:+.2f}"
