"""A few spectra, what the decoder makes of them, and the difference.

Shapes: n spectra, P pixels.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from spectangle.figures.style import COLOURS, GREY, INK
from spectangle.survey.spectral_lines import LINES

__all__ = ["reconstruction_figure"]


def reconstruction_figure(
    wavelength: np.ndarray,
    flux: np.ndarray,
    reconstructed: np.ndarray,
    titles: Sequence[str],
    flux_error: np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """Spectra with their reconstructions, residuals below each on a scale of their own.

    Arguments:
        wavelength: Vacuum wavelengths [P] in nm.
        flux: Spectra [n, P].
        reconstructed: Decoded spectra [n, P].
        titles: Of each spectrum.
        flux_error: Errors [n, P]; drawn as a band about the residuals.
        title: Of the figure.
    """
    n = len(flux)
    figure = Figure(figsize=(10, 0.6 + 2.15 * n), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12)
    axes = figure.subplots(2 * n, 1, sharex=True, height_ratios=[2, 1] * n)
    for i in range(n):
        top, bottom = axes[2 * i], axes[2 * i + 1]
        residual = flux[i] - reconstructed[i]
        top.plot(wavelength, flux[i], color=GREY, lw=0.9, label="spectrum")
        top.plot(wavelength, reconstructed[i], color=COLOURS[0], lw=1.0, label="reconstruction")
        words = f"{titles[i]}; residual rms {residual.std():.4f}"
        top.set_title(textwrap.fill(words, 170), fontsize=9.5, loc="left")
        top.set_ylabel("flux")
        if flux_error is not None:
            bottom.fill_between(
                wavelength, -flux_error[i], flux_error[i], color=GREY, alpha=0.35, lw=0, label=r"noise, $\pm 1\sigma$"
            )
        bottom.plot(wavelength, residual, color=COLOURS[1], lw=0.7, label="residual")
        bottom.axhline(0, color=INK, lw=0.6)
        limit = 1.1 * np.quantile(np.abs(residual), 0.998) + 1e-9
        bottom.set(ylim=(-limit, limit), ylabel="residual")
        for species, line, _ in LINES:
            if species == "Ca II" and wavelength[0] < line < wavelength[-1]:
                for panel in (top, bottom):
                    panel.axvline(line, color=GREY, lw=0.6, ls=":", zorder=0)
                if i == 0:
                    top.text(line, 0.04, f" {species}", transform=top.get_xaxis_transform(), fontsize=7.5)
    lines = [handles + more for handles, more in zip(*(a.get_legend_handles_labels() for a in axes[:2]), strict=True)]
    figure.legend(*lines, fontsize=8.5, frameon=False, ncols=4, loc="outside lower center")
    axes[-1].set(xlabel="vacuum wavelength [nm]", xlim=(wavelength[0], wavelength[-1]))
    figure.align_ylabels(axes)
    return figure
