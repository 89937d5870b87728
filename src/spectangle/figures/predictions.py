"""Labels read from a representation against the catalogue's: Figs. 9 and 10 of the paper, residuals, S/N.

Shapes: N stars, K labels.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spectangle.figures.style import (
    COLOURS,
    GREY,
    INK,
    axis_title,
    minus,
    orient,
    plain_log_ticks,
    quantile_limits,
    rows_of,
    symbol,
)
from spectangle.metrics import number, residual_metrics

__all__ = ["diagram_axes", "diagrams_figure", "noise_residual_figure", "prediction_figure"]

METALLICITIES = ("m_h", "fe_h")


def diagram_axes(labels: Collection[str]) -> list[tuple[str, str, str]]:
    """Kiel and chemical diagram as far as a survey has their labels: across, up, colour (empty where it lacks that)."""
    metallicity = next((name for name in METALLICITIES if name in labels), METALLICITIES[0])
    diagrams = [("teff", "logg", metallicity), (metallicity, "alpha_fe", "teff")]
    return [(x, y, colour if colour in labels else "") for x, y, colour in diagrams if {x, y} <= set(labels)]


def diagrams_figure(
    catalogue: Mapping[str, np.ndarray],
    columns: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    units: Mapping[str, str],
) -> Figure:
    """Kiel and chemical diagrams from predicted labels beside the catalogue's (Figs. 9 and 10): in each row the same
    stars, those that have both labels; grey ones lack the label that is the colour.

    Arguments:
        catalogue: Labels [N] by name, NaN where one is missing.
        columns: By the title of a column, predicted labels [N] by name for each of :func:`diagram_axes` (Kiel and
            chemical diagram may come from two latents, as in the paper).
        units: Unit of each label.
    """
    rows = diagram_axes(catalogue)
    columns = {"catalogue": [catalogue] * len(rows)} | dict(columns)
    figure = Figure(figsize=(4.1 * len(columns) + 1.0, 3.9 * max(1, len(rows))), layout="constrained")
    for r, (x, y, colour) in enumerate(rows):
        panels = [figure.add_subplot(len(rows), len(columns), r * len(columns) + c + 1) for c in range(len(columns))]
        known = np.isfinite(catalogue[x]) & np.isfinite(catalogue[y])
        stars = {name: values[known] for name, values in catalogue.items()}
        sets = [{name: sets[r][name][known] for name in (x, y)} for sets in columns.values()]
        limits = [quantile_limits(stars[name], *(labels[name] for labels in sets)) for name in (x, y)]
        for axes, title, labels in zip(panels, columns, sets, strict=True):
            points = _draw_stars(axes, labels[x], labels[y], stars.get(colour))
            axes.set(xlim=limits[0], ylim=limits[1], xlabel=axis_title(x, units))
            if axes is panels[0]:
                axes.set_ylabel(axis_title(y, units))
                words = f"{known.sum():,} test stars"
            else:
                axes.tick_params(labelleft=False)
                words = _errors({name: _mae(labels[name], stars[name]) for name in (x, y)}, units)
            axes.set_title(f"{title}\n{words}", fontsize=10)
            orient(axes, x, y)
        if colour:
            words = f"{axis_title(colour, units)}, catalogue"
            figure.colorbar(points, ax=panels, label=words, extend="both", pad=0.01, aspect=28)
    return figure


def _draw_stars(axes: Axes, x: np.ndarray, y: np.ndarray, colour: np.ndarray | None) -> Any:
    """Draw stars [N], the fewer, the larger; coloured by a label, if there is one, and grey where a star lacks it."""
    dots: dict = {"s": float(np.clip(5000 / max(1, len(x)), 3, 14)), "linewidths": 0, "rasterized": True}
    if colour is None:
        return axes.scatter(x, y, color=COLOURS[0], **dots)
    known = np.isfinite(colour)
    axes.scatter(x[~known], y[~known], color=GREY, **dots)
    low, high = quantile_limits(colour, tail=0.02, margin=0)
    return axes.scatter(x[known], y[known], c=colour[known], cmap="viridis", vmin=low, vmax=high, **dots)


def _errors(errors: Mapping[str, float], units: Mapping[str, str]) -> str:
    """Mean absolute errors of some labels in words, for a title: within a diagram they would lie over stars."""
    return "MAE " + ", ".join(
        f"{symbol(name)} {number(error, units[name])} {units[name]}" for name, error in errors.items()
    )


def prediction_figure(
    predicted: Mapping[str, np.ndarray], catalogue: Mapping[str, np.ndarray], units: Mapping[str, str], title: str = ""
) -> Figure:
    """Predicted against catalogue labels [N], with residuals (predicted - catalogue) below, a panel for each label; the
    stars that have it.
    """
    rows = rows_of(list(catalogue))
    figure = Figure(figsize=(3.6 * len(rows[0]) + 0.4, 5.4 * len(rows)), layout="constrained")
    if title:
        figure.suptitle(f"{title}\nresidual: predicted \N{MINUS SIGN} catalogue", fontsize=12)
    for part, names in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        _prediction_row(part, predicted, {name: catalogue[name] for name in names}, units, len(rows[0]))
    return figure


def _prediction_row(
    figure: Any,
    predicted: Mapping[str, np.ndarray],
    catalogue: Mapping[str, np.ndarray],
    units: Mapping[str, str],
    columns: int,
) -> None:
    axes = figure.subplots(2, columns, height_ratios=[3, 1.4], squeeze=False, sharex="col")
    for unused in axes[:, len(catalogue) :].ravel():
        unused.set_axis_off()
    axes = axes[:, : len(catalogue)]
    for (name, all_stars), top, bottom in zip(catalogue.items(), *axes, strict=True):
        known = np.isfinite(all_stars)
        truth, found = all_stars[known], predicted[name][known]
        dots = _dots(len(all_stars))
        _draw_predictions(top, truth, found, dots)
        stars = "" if known.all() else f", {known.sum():,} stars"
        words = _error_words(residual_metrics(found, truth), units[name]) + stars
        top.set_title(f"{symbol(name)}\n{words}", fontsize=9.5)  # within the axes it would lie over stars
        _draw_residuals(bottom, truth, found - truth, dots)
        bottom.set_xlabel(f"{axis_title(name, units)}, catalogue")
    axes[0, 0].set_ylabel("predicted")
    axes[1, 0].set_ylabel("residual")
    if axes[1, -1].get_legend_handles_labels()[0]:
        axes[1, -1].legend(loc="lower left", fontsize=8, frameon=False, ncols=2)
    figure.align_ylabels(list(axes[:, 0]))


def _dots(n: int) -> dict:
    """How so many stars are drawn: the more, the smaller and fainter."""
    size, alpha = np.clip(110 / np.sqrt(n), 1.0, 7.0), np.clip(35 / np.sqrt(n), 0.3, 0.7)
    return {"ms": float(size), "alpha": float(alpha), "markeredgewidth": 0, "color": COLOURS[0], "rasterized": True}


def _draw_predictions(axes: Axes, truth: np.ndarray, found: np.ndarray, dots: dict) -> None:
    limits = quantile_limits(truth, tail=0.001)
    axes.plot(truth, found, ".", **dots)
    axes.plot(limits, limits, color=INK, lw=0.9)
    axes.set(xlim=limits, ylim=quantile_limits(truth, found, tail=0.001))
    _mark_outside(axes, truth, found, dots)


def _draw_residuals(axes: Axes, truth: np.ndarray, residual: np.ndarray, dots: dict) -> None:
    axes.plot(truth, residual, ".", **dots)
    axes.axhline(0, color=INK, lw=0.9)
    _running(axes, truth, residual)
    axes.set_ylim(quantile_limits(residual, -residual, tail=0.002))
    _mark_outside(axes, truth, residual, dots)


def _mark_outside(axes: Axes, x: np.ndarray, y: np.ndarray, dots: dict) -> None:
    """Stars beyond the limits of a panel as triangles at its edge, and how many there are: the errors above the panel
    count them.
    """
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    sides = {"^": y > high, "v": y < low, ">": x > right, "<": x < left}
    outside = np.logical_or.reduce(list(sides.values()))
    if not (count := outside.sum()):
        return
    at_edge = np.clip(x, left, right), np.clip(y, low, high)
    triangles = dots | {"ms": 5.0, "alpha": 1.0, "ls": "none", "clip_on": False, "zorder": 3}
    for marker, beyond in sides.items():
        here = beyond & outside
        outside = outside & ~here  # a star in a corner is drawn once
        if here.any():
            [drawn] = axes.plot(at_edge[0][here], at_edge[1][here], marker=marker, **triangles)
            drawn.set_in_layout(False)  # it may stand out of the axes by half of its size: no panel moves for that
    axes.set_title(f"{count:,} outside", loc="right", fontsize=8, pad=4, color=INK)


def _error_words(metrics: Mapping[str, float], unit: str) -> str:
    mae, mean, sigma = (minus(number(metrics[key], unit)) for key in ("mae", "mean", "sigma"))
    r2 = minus(f"{metrics['r2']:.2f}")
    return f"MAE {mae}, mean {mean}, $\\sigma$ {sigma} {unit}\n$R^2$ {r2}"


def noise_residual_figure(
    residuals: Mapping[str, Mapping[str, np.ndarray]],
    snr: np.ndarray,
    units: Mapping[str, str],
    bins: int = 12,
    title: str = "",
    limit: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Mean absolute residual of each label against S/N, one line per representation.

    Arguments:
        residuals: By representation, residuals [N] by label.
        snr: S/N [N]; stars without one are left out.
        units: Unit of each label.
        limit: Residuals [N] by label of the best possible reader, NaN where nobody knows them; a line below which none
            can lie.
        bins: Number of bins, with equal numbers of stars.
        title: Of the figure.
    """
    names = list(next(iter(residuals.values())))
    rows = rows_of(names)
    figure = Figure(figsize=(3.4 * len(rows[0]) + 0.4, 3.5 * len(rows)), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12)
    panels = figure.subplots(len(rows), len(rows[0]), squeeze=False).ravel()
    for unused in panels[len(names) :]:
        unused.remove()
    for axes, name in zip(panels, names, strict=False):
        for i, (representation, by_label) in enumerate(residuals.items()):
            x, y, error = _binned(snr, np.abs(by_label[name]), bins)
            axes.errorbar(
                x, y, error, color=COLOURS[i % len(COLOURS)], marker="os^Dv<"[i % 6], ms=4, lw=1.2, label=representation
            )
        if limit and np.isfinite(limit[name]).any():
            x, y, _ = _binned(snr, np.abs(limit[name]), bins)
            axes.plot(x, y, color=INK, lw=1.4, ls="--", label="limit")
        if not any(np.size(line.get_xdata()) for line in axes.lines):
            axes.set_axis_off()  # hardly a star with S/N has this label
            continue
        axes.set(xscale="log", yscale="log", xlabel="S/N per pixel")  # a lost label is far above a kept one
        axes.set_title(f"mean |residual| of {axis_title(name, units)}", fontsize=10)
        plain_log_ticks(axes.xaxis, (1, 2, 5))
        plain_log_ticks(axes.yaxis, (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8))
        axes.tick_params(colors=INK)
        axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.6)
    if len(residuals) > 1 or limit:
        lines = figure.axes[0].get_legend_handles_labels()
        figure.legend(*lines, fontsize=8.5, frameon=False, ncols=6, loc="outside lower center")
    return figure


def _mae(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.nanmean(np.abs(found - truth)))


def _running(axes: Axes, x: np.ndarray, residual: np.ndarray) -> None:
    """Median and 16-84 % of the residual in bins of equal width that hold at least 10 stars; gaps where they do not."""
    bins = int(np.clip(len(x) // 30, 4, 15))
    edges = np.linspace(*quantile_limits(x, margin=0), bins + 1)
    place = np.digitize(x, edges) - 1
    filled = [(place == i).sum() >= 10 for i in range(bins)]
    if not any(filled):
        return
    low, middle, high = np.full((3, bins), np.nan)
    for i in np.flatnonzero(filled):
        low[i], middle[i], high[i] = np.quantile(residual[place == i], [0.16, 0.5, 0.84])
    centre = 0.5 * (edges[:-1] + edges[1:])
    axes.plot(centre, middle, color=COLOURS[1], lw=1.6, label="median")
    axes.plot(centre, low, color=COLOURS[1], lw=0.9, ls="--", label="16-84 %")
    axes.plot(centre, high, color=COLOURS[1], lw=0.9, ls="--")


def _binned(x: np.ndarray, y: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median x, mean y and its standard error in bins of equally many stars."""
    good = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & (x > 0))
    parts = [part for part in np.array_split(good[np.argsort(x[good])], bins) if len(part) > 1]
    return (
        np.array([np.median(x[p]) for p in parts]),
        np.array([y[p].mean() for p in parts]),
        np.array([y[p].std(ddof=1) / np.sqrt(len(p)) for p in parts]),
    )
