"""The tables and the figure of the check of generated spectra.

Shapes: n stars, P pixels, K labels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from spectangle.figures.style import axis_title, minus, rows_of, symbol
from spectangle.files import whole_file
from spectangle.generation.figure import ACCENT, GREY, INK
from spectangle.generation.parents import Parents
from spectangle.generation.swaps import Swap, Truth, inside_emulator, reread_labels, true_spectra
from spectangle.inference.trained import TrainedModel
from spectangle.metrics import number

__all__ = ["draw_check", "emulator_table", "reread_table"]


def emulator_table(results: Mapping[str, Mapping[str, float]], units: Mapping[str, str]) -> Table:
    """Generated spectra against the emulator, one row per changed label."""
    table = _table("Generated spectra against the LTE emulator (rms over pixels and stars, in units of the continuum)")
    for name in ("stars", "median change", "rms if left unchanged", "rms generated", "rms floor", "change captured"):
        table.add_column(name, justify="right")
    for label, row in results.items():
        change = f"{number(row['median_change'], units[label])} {units[label]}"
        table.add_row(
            label,
            str(row["stars"]),
            change,
            *(f"{row[key]:.4f}" for key in ("rms_unchanged", "rms_generated", "rms_floor")),
            f"{row['captured']:.0%}",
        )
    return table


def reread_table(
    results: Mapping[str, Mapping[str, Any]],
    labels: Sequence[str],
    units: Mapping[str, str],
    metrics: Mapping[str, float],
) -> Table:
    """What a regressor on raw spectra reads after a swap, one row per changed label."""
    table = _table(
        "Swap and re-read: what a regressor on raw spectra reads from the generated ones (1.00 = all of the change)"
    )
    for name in (
        "stars",
        "slope",
        "MAE of the new value",
        "MAE on real spectra",
        *(f"{name} moves by" for name in labels),
    ):
        table.add_column(name, justify="right")
    for label, row in results.items():
        unit, real = units[label], metrics.get(f"test/spectra/{label}/mae")
        moves = [number(row["moved"].get(name), units[name]) for name in labels]
        table.add_row(
            label, str(row["stars"]), f"{row['slope']:.2f}", number(row["mae"], unit), number(real, unit), *moves
        )
    return table


def draw_check(
    model: TrainedModel, parents: Parents, swaps: Sequence[Swap], truth: Truth | None, regressor: Any, path: Path
) -> Path:
    """Draw, per label, the change of a typical star's spectrum, and the re-read value against the one asked for."""
    from matplotlib.figure import Figure

    rows = rows_of(list(model.labels))
    figure = Figure(figsize=(3.6 * len(rows[0]), 6.4 * len(rows)), layout="constrained")
    axes = figure.subplots(2 * len(rows), len(rows[0]), squeeze=False)
    tops, bottoms = axes[::2].ravel(), axes[1::2].ravel()
    for swap, top, bottom in zip(swaps, tops, bottoms, strict=False):
        _draw_change(model, parents, swap, truth, top)
        _draw_reread(model, parents, swap, regressor, bottom)
    for unused in (*tops[len(swaps) :], *bottoms[len(swaps) :]):
        unused.remove()
    figure.suptitle(
        "Above: the spectrum of one star with one label changed; below: every star, read again", fontsize=12
    )
    figure.legend(*tops[0].get_legend_handles_labels(), fontsize=9, ncols=2, loc="outside lower center", frameon=False)
    with whole_file(path) as part:
        figure.savefig(part, dpi=110, format="png")
    return path


def _draw_change(model: TrainedModel, parents: Parents, swap: Swap, truth: Truth | None, axes: Any) -> None:
    known = swap.near if truth is None else swap.near & inside_emulator(truth.labels + swap.labels - parents.labels)
    rows = np.flatnonzero(known)
    size = np.abs(swap.labels - parents.labels)[rows, swap.label]
    star = rows[np.argsort(size)[[3 * len(size) // 4]]]
    change = model.decode(parents.latent[star], swap.labels[star]) - model.decode(
        parents.latent[star], parents.labels[star]
    )
    if truth is not None:
        before, after = true_spectra(truth, parents, swap, star)
        axes.plot(model.wavelength, (after - before)[0], color=INK, lw=1.1, label="emulator")
    axes.plot(model.wavelength, change[0], color=ACCENT, lw=0.9, label="generated")
    name, (old, new) = (
        model.labels[swap.label],
        (parents.labels[star, swap.label].item(), swap.labels[star, swap.label].item()),
    )
    unit = model.units[name]
    axes.set_title(
        f"{symbol(name)}: {minus(number(old, unit))} to {minus(number(new, unit))} {unit}", fontsize=10, loc="left"
    )
    axes.set_xlabel("vacuum wavelength [nm]")
    axes.set_ylabel("change of the flux")


def _draw_reread(model: TrainedModel, parents: Parents, swap: Swap, regressor: Any, axes: Any) -> None:
    rows = np.flatnonzero(swap.near)
    _, after = reread_labels(model, parents, swap, regressor, rows)
    asked = swap.labels[rows, swap.label]
    axes.plot(asked, after[:, swap.label], ".", color=ACCENT, ms=2, alpha=0.5)
    axes.plot([asked.min(), asked.max()], [asked.min(), asked.max()], color=GREY, lw=1)
    name = model.labels[swap.label]
    axes.set_xlabel(f"{axis_title(name, model.units)}, asked for")
    axes.set_ylabel("read from the generated spectrum")


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("changed label", no_wrap=True)
    return table
