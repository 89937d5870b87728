"""Tables that people read: labels as rows, representations as columns."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from spectangle.metrics import number

__all__ = ["SOURCES", "result_table"]

SOURCES = {
    "test/spectra": "raw spectra",
    "test/latent": "latent",
    "paper/spectra": "raw spectra, paper's network",
    "paper/latent": "latent, paper's network",
    "limit": "limit",
}


def result_table(
    metrics: Mapping[str, float], labels: Sequence[str], units: Mapping[str, str], signs: Mapping[str, str]
) -> Table:
    """MAE, mean, sigma and R2 of each label from the spectra, from the latent and, where it is known, of the best
    possible reader; of how many stars, if that differs.

    Arguments:
        metrics: Final numbers by metric path.
        labels: Rows.
        units: Unit of each label.
        signs: What lambda does to each label, for instance ``entangled``.
    """
    table = Table(title="Downstream regressor on test stars: predicted - catalogue", title_justify="left")
    for name in ("label", "in the latent", "read from"):
        table.add_column(name, no_wrap=True)
    counts = [metrics.get(f"test/stars/{label}") for label in labels]
    differ = len(set(counts)) > 1
    for name in ("MAE", "mean", "sigma", "R2", *(["stars"] if differ else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for label, count in zip(labels, counts, strict=True):
        for source, title in SOURCES.items():
            values = [metrics.get(f"{source}/{label}/{name}") for name in ("mae", "mean", "sigma", "r2")]
            if values[0] is not None:
                cells = [number(value, units[label]) for value in values[:3]] + [number(values[3])]
                cells += [f"{count:,.0f}"] if differ else []
                table.add_row(escape(f"{label} [{units[label]}]"), signs[label], title, *cells)
        table.add_section()
    return table
