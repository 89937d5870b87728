"""Tables that people read: labels as rows, representations as columns."""

from collections.abc import Mapping, Sequence

from rich.table import Table

__all__ = ["result_table"]

REPRESENTATIONS = {"spectra": "raw spectra", "latent": "latent"}


def result_table(metrics: Mapping[str, float], labels: Sequence[str], units: Mapping[str, str], signs: Mapping[str, str]) -> Table:
    """MAE, mean, sigma and R2 of each label from the spectra and from the latent.

    Arguments:
        metrics: Final numbers by metric path.
        labels: Rows.
        units: Unit of each label.
        signs: What lambda does to each label, for instance ``entangled``.
    """
    table = Table(title="Downstream regressor on test stars: predicted - catalogue", title_justify="left")
    table.add_column("label")
    table.add_column("in z")
    for name in REPRESENTATIONS.values():
        for metric in ("MAE", "mean", "sigma", "R2"):
            table.add_column(f"{name}\n{metric}", justify="right")
    for label in labels:
        cells = [
            number(metrics.get(f"test/{representation}/{label}/{metric}"), "" if metric == "r2" else units[label])
            for representation in REPRESENTATIONS
            for metric in ("mae", "mean", "sigma", "r2")
        ]
        table.add_row(f"{label} [{units[label]}]".replace("[", r"\["), signs[label], *cells)
    return table


def number(value: float | None, unit: str = "") -> str:
    """A number with the digits that its unit deserves: whole kelvins, thousandths of a dex."""
    if value is None or value != value:
        return "-"
    return f"{value:.0f}" if unit == "K" else f"{value:.3f}"
