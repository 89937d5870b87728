"""Numbers that compare predicted with catalogue labels.

Shapes: N stars, K labels.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["balanced_accuracy", "label_metrics", "number", "r2", "residual_metrics"]


def residual_metrics(predicted: np.ndarray, catalogue: np.ndarray) -> dict[str, float]:
    r"""Summarise the residuals :math:`r` = predicted - catalogue of one label [N], in its unit, of the stars that have
    it.

    ``mae`` and ``mean`` compare with Table 1 of the paper. Its sigma cannot be the standard deviation of the residuals
    (six of its 16 cells have MAE > sqrt(mean^2 + sigma^2)), so several are given: ``sigma`` (standard deviation),
    ``sigma_mad`` (1.4826 x median absolute deviation) and ``sigma_abs`` (standard deviation of :math:`|r|`). ``r2`` is
    the fraction of the catalogue's variance that is predicted.
    """
    known = np.isfinite(catalogue)
    predicted, catalogue = np.asarray(predicted)[known], np.asarray(catalogue)[known]
    residual = predicted.astype(np.float64) - catalogue.astype(np.float64)
    return {
        "mae": float(np.abs(residual).mean()),
        "mean": float(residual.mean()),
        "sigma": float(residual.std()),
        "sigma_mad": float(1.4826 * np.median(np.abs(residual - np.median(residual)))),
        "sigma_abs": float(np.abs(residual).std()),
        "r2": r2(predicted, catalogue),
    }


def r2(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Coefficient of determination, 1 - sum (predicted - truth)^2 / sum (truth - mean)^2, of the stars with a truth."""
    known = np.isfinite(truth)
    predicted, truth = np.asarray(predicted, np.float64)[known], np.asarray(truth, np.float64)[known]
    return float(1 - np.square(predicted - truth).sum() / np.square(truth - truth.mean()).sum())


def balanced_accuracy(truth: np.ndarray, found: np.ndarray, n_classes: int) -> float:
    """Mean over the classes of the fraction of their stars [N] that is found; 1 / n_classes is chance."""
    shares = [np.mean(found[truth == c] == c) for c in range(n_classes) if (truth == c).any()]
    return float(np.mean(shares))


def label_metrics(prefix: str, labels: Sequence[str], predicted: np.ndarray, catalogue: np.ndarray) -> dict[str, float]:
    """Metrics of all labels [N, K] under their paths, ``<prefix>/<label>/<metric>``."""
    return {
        f"{prefix}/{label}/{name}": value
        for i, label in enumerate(labels)
        for name, value in residual_metrics(predicted[:, i], catalogue[:, i]).items()
    }


def number(value: float | None, unit: str = "") -> str:
    """A number with the digits that its unit deserves: whole kelvins, thousandths of a dex or of another unit; what
    would read as zero in that has three digits, and what is large none behind the point.
    """
    if value is None or value != value:
        return "-"
    if unit in ("", "dex") or value == 0 or (unit != "K" and 0.001 <= abs(value) < 1000):
        return f"{value:.3f}"
    return f"{value:.0f}" if unit == "K" or abs(value) >= 1000 else f"{value:.3g}"
