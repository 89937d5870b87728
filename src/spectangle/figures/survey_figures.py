"""A survey at a glance: Figs. 3-5 of the paper, S/N, a few spectra.

Manteiga et al. 2025, A&A 694, A326: Fig. 3 (histograms of the labels), Fig. 4 (Kiel diagram), Fig. 5 ([alpha/Fe]
against [M/H]). Shapes: N stars, n spectra, P pixels.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from spectangle.figures.style import COLOURS, axis_title, orient, plain_log_ticks, quantile_limits

__all__ = ["diagram_figure", "label_figure", "noise_figure", "spectra_figure"]


def label_figure(
    labels: Mapping[str, np.ndarray], units: Mapping[str, str], origin: np.ndarray | None = None
) -> Figure:
    """Histograms of each label [N], by catalogue [N] if there are several: one alone would lie on that of all stars
    (Fig. 3).
    """
    rows = (len(labels) + 1) // 2
    figure = Figure(figsize=(10, 2.9 * rows), layout="constrained")
    catalogues = [] if origin is None or len(np.unique(origin)) < 2 else np.unique(origin)
    for index, (name, values) in enumerate(labels.items()):
        axes = figure.add_subplot(rows, 2, index + 1)
        bins = np.linspace(*quantile_limits(values, tail=0, margin=1e-6), 51).tolist()
        known = np.isfinite(values)
        axes.hist(values[known], bins=bins, color="#d3d7db", label="all")
        for i, which in enumerate(catalogues):
            axes.hist(
                values[known & (origin == which)],
                bins=bins,
                histtype="step",
                linewidth=1.3,
                color=COLOURS[i % len(COLOURS)],
                label=which,
            )
        axes.set(xlabel=axis_title(name, units), ylabel="stars")
        if known.any():  # a logarithm of no star is a warning
            axes.set_yscale("log")
            plain_log_ticks(axes.yaxis)
        if index == 0 and len(catalogues):
            axes.legend(framealpha=0.85, edgecolor="none")
    return figure


def diagram_figure(labels: Mapping[str, np.ndarray], units: Mapping[str, str], x: str, y: str, colour: str) -> Figure:
    """One label [N] against another, coloured by a third if it is named: the Kiel diagram (Fig. 4), [alpha/Fe] against
    [M/H] (Fig. 5). Which ones a survey has says :func:`~spectangle.figures.predictions.diagram_axes`.
    """
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.subplots()
    style: dict = {"s": 2 if len(labels[x]) > 3000 else 10, "linewidths": 0, "rasterized": True}
    if colour:
        low, high = quantile_limits(labels[colour], tail=0.02, margin=0)
        style |= {"c": labels[colour], "cmap": "viridis", "vmin": low, "vmax": max(high, low + 1e-6)}
    else:
        style |= {"color": COLOURS[0]}
    points = axes.scatter(labels[x], labels[y], **style)
    if colour:
        figure.colorbar(points, ax=axes, label=axis_title(colour, units), extend="both")
    axes.set(xlabel=axis_title(x, units), ylabel=axis_title(y, units))
    orient(axes, x, y)
    return figure


def noise_figure(snr: np.ndarray, g_mag: np.ndarray) -> Figure:
    """Histogram of S/N [N], and S/N against G [N]."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    good = np.isfinite(snr) & (snr > 0)
    left.hist(
        snr[good],
        bins=np.geomspace(snr[good].min(), snr[good].max() * 1.001, 40) if good.any() else 10,
        color=COLOURS[0],
    )
    left.set(xlabel="S/N per archive pixel", ylabel="stars", xscale="log")
    right.plot(g_mag[good], snr[good], "." if good.sum() < 3000 else ",", color=COLOURS[0])
    right.set(xlabel="$G$ [mag]", ylabel="S/N", yscale="log")
    for axis in (left.xaxis, right.yaxis):
        plain_log_ticks(axis)
    return figure


def spectra_figure(wavelength: np.ndarray, flux: np.ndarray, titles: list[str]) -> Figure:
    """A few spectra [n, P] one above the other, gaps where pixels are masked, with a title beside each."""
    figure = Figure(figsize=(10, 1.2 + 0.9 * len(flux)), layout="constrained")
    axes = figure.subplots()
    for index, (spectrum, title) in enumerate(zip(flux, titles, strict=True)):
        axes.plot(wavelength, spectrum + index, color=COLOURS[index % 4], linewidth=0.8)
        height = index + (float(np.nanmedian(spectrum)) if np.isfinite(spectrum).any() else 1.0)
        axes.text(1.012, height, title, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set(xlabel="vacuum wavelength [nm]", ylabel="flux + constant", xlim=(wavelength[0], wavelength[-1]))
    return figure
