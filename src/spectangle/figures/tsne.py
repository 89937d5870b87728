"""Fig. 8 of the paper: t-SNE planes of spectra and latent, with the number that the eye should see.

Shapes: N stars, F features, L labels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from spectangle.figures.style import axis_title, minus, quantile_limits, rows_of, symbol
from spectangle.metrics import r2

__all__ = ["map_figure", "neighbour_r2", "plane"]


def plane(features: np.ndarray, seed: int = 0, perplexity: float = 30.0) -> np.ndarray:
    """t-SNE plane [N, 2] of features [N, F] (van der Maaten and Hinton 2008).

    More than 50 features are first reduced to 50 principal components, as t-SNE's authors advise.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = np.asarray(features, np.float32)
    if features.shape[1] > 50 and len(features) > 50:
        features = PCA(50, random_state=seed).fit_transform(features)
    perplexity = min(perplexity, max(2.0, (len(features) - 1) / 4))
    return TSNE(init="pca", perplexity=perplexity, random_state=seed, n_jobs=1).fit_transform(features)


def neighbour_r2(points: np.ndarray, values: np.ndarray, neighbours: int = 10, seed: int = 0) -> float:
    """How well a label [N] is read from a star's neighbours in the plane [N, 2]: R2 of k-NN, 5-fold cross-validated, of
    the stars that have it.

    It puts a number on the order that the eye sees: 1 is a clean gradient, 0 is confetti.
    """
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.neighbors import KNeighborsRegressor

    known = np.isfinite(values)
    points, values = points[known], values[known]
    folds = KFold(5, shuffle=True, random_state=seed)
    predicted = cross_val_predict(KNeighborsRegressor(min(neighbours, len(points) // 2)), points, values, cv=folds)
    return r2(np.asarray(predicted), values)


def map_figure(
    planes: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    units: Mapping[str, str],
    groups: Mapping[str, Sequence[str]],
    title: str = "",
) -> Figure:
    """The same stars in several planes side by side, coloured by each label (Fig. 8).

    Arguments:
        planes: t-SNE planes [N, 2] by title, for instance of the spectra and of the latent.
        labels: Labels [N] by name.
        units: Unit of each label.
        groups: Names of the labels by the title of their row, for instance what was kept and what was removed; many
            labels take several rows.
        title: Of the figure.
    """
    most = max(1, 5 - len(planes))
    rows = [
        (group if i == 0 else "", names)
        for group, all_names in groups.items()
        for i, names in enumerate(rows_of(all_names, most))
    ]
    across = max(len(names) for _, names in rows)
    figure = Figure(figsize=(3.1 * len(planes) * across + 0.8, 3.05 * len(rows) + 0.5), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=13)
    for row, (group, names) in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        row.suptitle(group, fontsize=11, x=0.01, ha="left", fontweight="bold")
        blocks = row.subfigures(1, across, wspace=0.03, squeeze=False)[0]
        for block, name in zip(blocks, names, strict=False):
            _label_block(block, planes, labels[name], name, units)
    return figure


def _label_block(
    block, planes: Mapping[str, np.ndarray], values: np.ndarray, name: str, units: Mapping[str, str]
) -> None:
    all_axes = np.atleast_1d(block.subplots(1, len(planes)))
    low, high = quantile_limits(values, tail=0.02, margin=0.0)
    known, shown = np.isfinite(values), None
    for axes, (place, points) in zip(all_axes, planes.items(), strict=True):
        shown = axes.scatter(
            *points[known].T,
            c=values[known],
            s=4,
            cmap="viridis",
            vmin=low,
            vmax=max(high, low + 1e-6),
            linewidths=0,
            rasterized=True,
        )
        axes.set_title(
            f"{symbol(name)} in {place}\n$R^2$ of neighbours {_number(neighbour_r2(points, values))}", fontsize=9.5
        )
        axes.set(xticks=[], yticks=[])
        axes.set_box_aspect(1)
        for side in axes.spines.values():
            side.set_color("#c4c8cc")
    bar = block.colorbar(shown, ax=list(all_axes), pad=0.01, aspect=22, shrink=0.85, extend="both")
    bar.set_label(axis_title(name, units), fontsize=9.5)
    bar.ax.tick_params(labelsize=8.5)


def _number(value: float) -> str:
    return minus(f"{value + 0.0:.2f}".replace("-0.00", "0.00"))
