"""The frontier: what a sweep's runs paid, in the entangled labels, for the disentangled ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from spectangle.configs.nested import differing
from spectangle.console import console, print_table
from spectangle.errors import SpectangleError
from spectangle.figures import frontier_figure, pareto_front, save
from spectangle.reports.table1.collect import Representation, representation_of
from spectangle.runs.folder import Run
from spectangle.runs.sweep_folder import list_runs

__all__ = ["Point", "draw", "frontier_points", "print_frontier"]


@dataclass(frozen=True)
class Point:
    """One run on the frontier.

    Arguments:
        representation: What the latent keeps and loses.
        choices: What was chosen for this run, by key; the group of lambdas is left out.
        entangled_mae: MAE of the kept labels, raw spectra = 1.
        excess: Excess leakage of each lost label, R2 beyond the population floor.
    """

    representation: Representation
    choices: Mapping[str, Any]
    entangled_mae: float
    excess: Mapping[str, float]

    @property
    def largest_excess(self) -> float:
        return max(self.excess.values())


def frontier_points(runs: Iterable[Run], stars: str = "val") -> list[Point]:
    """The finished runs that keep some labels, lose others and measured both on validation (``val``) or ``test`` stars,
    by what they keep.
    """
    points = []
    for run in runs:
        if not run.finished:
            continue
        metrics, one = run.metrics, representation_of(run.config)
        paths = {name: f"{'val/' if stars == 'val' else ''}excess/{name}" for name in one.disentangled}
        if paths and f"{stars}/entangled_mae" in metrics and all(path in metrics for path in paths.values()):
            excess = {name: metrics[path] for name, path in paths.items()}
            choices = {key: value for key, value in run.choices.items() if key != "lambdas"}
            points.append(Point(one, choices, metrics[f"{stars}/entangled_mae"], excess))
    return sorted(points, key=lambda point: point.representation.title)


def in_order(points: Sequence[Point]) -> list[Point]:
    """The points as the table has them: by representation, the cheapest first. Their places are their numbers in table
    and figure.
    """
    titles = list(dict.fromkeys(one.representation.title for one in points))
    return sorted(points, key=lambda one: (titles.index(one.representation.title), one.entangled_mae))


def draw(points: Sequence[Point], front: bool = True) -> Figure:
    """The points as a figure, each pair with its front if that is asked for; what only some runs chose is written
    beside them, or their number in the table where that is more than one short word.
    """
    points = in_order(points)
    varying = differing([one.choices for one in points])
    entangled_mae, excess = (
        np.array([one.entangled_mae for one in points]),
        np.array([one.largest_excess for one in points]),
    )
    notes, title = [str(one.choices.get(key, "")) for one in points for key in varying], ", ".join(varying)
    if len(varying) > 1 or any(len(note) > 8 for note in notes):
        notes, title = [str(number + 1) for number in range(len(points))], "number in the table"
    return frontier_figure(
        entangled_mae,
        excess,
        [one.representation.title for one in points],
        notes=notes,
        notes_title=title if varying else "",
        front=front,
    )


def print_frontier(cfg: DictConfig) -> None:
    """Print and draw the frontier of a sweep, on validation stars."""
    if cfg.sweep is None:
        raise SpectangleError(
            "sweep is missing; give the folder of a sweep: spectangle report kind=frontier sweep=runs/frontier."
        )
    points = frontier_points(list_runs(cfg.sweep))
    if not points:
        raise SpectangleError(
            f"{cfg.sweep} has no finished run that measured val/entangled_mae and val/excess; train with "
            "callbacks.regressor.every_n_epochs and callbacks.probes.every_n_epochs, as sweeps/frontier.yaml does."
        )
    print_table(frontier_table(points))
    folder = Path(cfg.output or cfg.sweep)
    written = save(draw(points), folder / "frontier")
    console.print(f"written: {', '.join(map(str, written))}", markup=False)


def frontier_table(points: Sequence[Point]) -> Table:
    """The points by representation, the cheapest first; a star marks those that no other beats in both."""
    varying = differing([one.choices for one in points])
    table = Table(title=f"Kept labels against leaks, {len(points)} runs, validation stars", title_justify="left")
    for heading in ("", "", "latent", *varying):
        table.add_column(escape(heading), no_wrap=True)
    numbers = {id(one): str(number + 1) for number, one in enumerate(in_order(points))}
    for heading in ("MAE of kept labels\n(raw spectra = 1)", "largest excess\n(R2)", "of"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for title in dict.fromkeys(one.representation.title for one in points):
        group = sorted((one for one in points if one.representation.title == title), key=lambda one: one.entangled_mae)
        front = set(
            pareto_front(
                np.array([one.entangled_mae for one in group]), np.array([one.largest_excess for one in group])
            ).tolist()
        )
        for i, one in enumerate(group):
            worst = max(one.excess, key=lambda name: one.excess[name])
            choices = [escape(str(one.choices.get(key, ""))) for key in varying]
            table.add_row(
                numbers[id(one)],
                "*" if i in front else "",
                title,
                *choices,
                f"{one.entangled_mae:.3f}",
                f"{one.largest_excess:.3f}",
                worst,
            )
        table.add_section()
    return table
