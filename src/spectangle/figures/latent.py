"""What each latent knows of each label, and what disentangling costs over many runs.

Shapes: N stars, Z latent, K labels, R runs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from spectangle.figures.style import COLOURS, GREY, INK, symbol

__all__ = ["frontier_figure", "information_figure", "mutual_information", "pareto_front"]

MARKERS = "os^Dv<"
DOTS: dict = {"s": 34, "edgecolor": "white", "linewidth": 0.5, "zorder": 3}
PERMUTATIONS = 5  # of the stars, whose mean information is noise


def mutual_information(latent: np.ndarray, labels: np.ndarray, bins: int = 12) -> np.ndarray:
    """Mutual information of each latent dimension [N, Z] and label [N, K] (NaN: none) in nats [Z, K].

    From counts in ``bins`` classes of equally many stars each, with the Miller-Madow correction for the bins that stay
    nearly empty, less the mean of what permuted stars show, which few stars need; monotone changes of either side leave
    it as it is. 0 is independence, ln(bins) is a one-to-one relation. Each label is told by the stars that have it.
    """
    found = np.empty((latent.shape[1], labels.shape[1]))
    for k in range(labels.shape[1]):
        known = np.isfinite(labels[:, k])
        z, y = _classes(latent[known], bins), _classes(labels[known, k : k + 1], bins)[:, 0]
        random = np.random.default_rng(0)  # the same permutations for all labels
        noise = np.mean([_information(z, random.permutation(y), bins) for _ in range(PERMUTATIONS)], axis=0)
        found[:, k] = _information(z, y, bins) - noise
    return np.maximum(found, 0.0)


def information_figure(matrices: Mapping[str, np.ndarray], labels: Sequence[str]) -> Figure:
    """Mutual information [Z, K] of latent dimensions and labels as pictures, one per representation on one scale.

    The rows are sorted by the label that they know most about, so that blocks stand out.
    """
    tallest = max(len(matrix) for matrix in matrices.values())
    width = max(2.5, 0.5 * len(labels))
    figure = Figure(figsize=(width * len(matrices) + 1.3, 1.5 + 0.19 * tallest), layout="constrained")
    top = max(0.05, max(float(matrix.max()) for matrix in matrices.values()))
    all_axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, matrix) in zip(all_axes, matrices.items(), strict=True):
        order = np.lexsort((-matrix.max(1), matrix.argmax(1)))
        image = axes.imshow(matrix[order], cmap="viridis", vmin=0, vmax=top, aspect="auto", interpolation="nearest")
        axes.set_title(title, fontsize=10)
        turned: dict = {"rotation": 45, "ha": "right"} if len(labels) > 5 else {}
        axes.set_xticks(range(len(labels)), [symbol(name) for name in labels], fontsize=9, **turned)
        axes.set_yticks(range(len(matrix)), [str(i) for i in order], fontsize=7)
    all_axes[0].set_ylabel("latent dimension")
    figure.colorbar(image, ax=list(all_axes), label="mutual information [nats]", pad=0.01)
    return figure


def frontier_figure(
    cost: np.ndarray,
    excess: np.ndarray,
    group: Sequence[str],
    aim: tuple[float, float] = (1.0, 0.05),
    notes: Sequence[str] = (),
    notes_title: str = "",
    front: bool = True,
) -> Figure:
    """The frontier: excess of the disentangled labels against the error of the entangled ones.

    Arguments:
        cost: MAE of the kept labels over that of the raw spectra, mean over kept labels [R].
        excess: Largest excess leakage of a disentangled label [R].
        group: What each run was asked for [R], for instance ``First pair``; one colour and marker each.
        aim: The corner that is good enough: cost and excess.
        notes: What to write beside each run [R], or nothing.
        notes_title: What the notes are.
        front: Whether a line joins the runs of a group that no other of them beats.
    """
    cost, excess, groups = np.asarray(cost, float), np.asarray(excess, float), np.asarray(group)
    figure = Figure(figsize=(6.6, 4.8), layout="constrained")
    axes = figure.subplots()
    x_limits = min(0.9, 0.95 * cost.min()), max(1.05, 1.04 * cost.max())
    y_limits = min(-0.02, 1.1 * excess.min()), max(0.15, 1.08 * excess.max())
    corner = [x_limits[0], aim[0]], y_limits[0], aim[1]
    axes.fill_between(*corner, color=COLOURS[2], alpha=0.14, lw=0, label="aim: both halves at once")
    for i, name in enumerate(dict.fromkeys(group)):
        own = groups == name
        colour, marker = COLOURS[(0, 1, 3, 4)[i % 4]], MARKERS[i % 6]
        axes.scatter(cost[own], excess[own], color=colour, marker=marker, label=name, **DOTS)
        best = pareto_front(cost[own], excess[own]) if front else []
        if len(best) > 1:
            axes.plot(cost[own][best], excess[own][best], color=colour, lw=1.2, zorder=2, drawstyle="steps-post")
    for x, y, note in zip(cost, excess, notes, strict=False):
        axes.annotate(note, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7, color=INK)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.axvline(1, color=GREY, lw=0.8)
    axes.set(xlim=x_limits, ylim=y_limits)
    axes.set_xlabel("error of the entangled labels (MAE, raw spectra = 1)", color=INK)
    axes.set_ylabel("excess leakage of the disentangled labels ($R^2$, largest)", color=INK)
    title = f"beside the points: {notes_title}" if notes_title else None
    axes.legend(frameon=False, fontsize=9, title=title, title_fontsize=8)
    return figure


def pareto_front(cost: np.ndarray, excess: np.ndarray) -> np.ndarray:
    """Rows that no other beats in both, from left to right."""
    order = np.lexsort((excess, cost))
    best = np.minimum.accumulate(excess[order])
    return order[np.r_[True, excess[order][1:] < best[:-1]]]


def _classes(values: np.ndarray, bins: int) -> np.ndarray:
    """Class of each value by its rank [N, F]; equal values share a class."""
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1], axis=0)
    return np.stack([np.searchsorted(edges[:, i], values[:, i], side="right") for i in range(values.shape[1])], axis=1)


def _information(z: np.ndarray, y: np.ndarray, bins: int) -> np.ndarray:
    """Mutual information [Z] of classes [N, Z] and the classes of a label [N]."""
    found = []
    for own in z.T:
        counts = np.bincount(own * bins + y, minlength=bins * bins).reshape(bins, bins)
        found.append(_entropy(counts.sum(0)) + _entropy(counts.sum(1)) - _entropy(counts.ravel()))
    return np.array(found)


def _entropy(counts: np.ndarray) -> float:
    used = counts[counts > 0]
    total = used.sum()
    return float(np.log(total) - (used * np.log(used)).sum() / total + (len(used) - 1) / (2 * total))
