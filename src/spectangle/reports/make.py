"""What spectangle report can print, by kind: a sweep's leaderboard, the difference of runs, Table 1, the frontier,
folds, figures.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from spectangle.configs.nested import differing, flat
from spectangle.console import console, print_table
from spectangle.errors import SpectangleError
from spectangle.runs.folder import Run
from spectangle.sweeps.leaderboard import Leaderboard
from spectangle.sweeps.leaderboard_page import dashboard_command, write_report

__all__ = [
    "KINDS",
    "difference_table",
    "draw_figures",
    "print_difference",
    "print_folds",
    "print_frontier",
    "print_leaderboard",
    "print_table1",
]

FOLD_COLUMNS = 136  # of a terminal that shows a table over folds with each cell in one line
QUIET = ("time/", "memory/")  # differs between any two runs
# beginnings of parts of metric paths: numbers that scatter about 0, or whose scale is 1
ABOUT_ZERO = (
    "mean",
    "r2",
    "control",
    "seen",
    "excess",
    "largest_excess",
    "floor",
    "discriminator_gain",
    "disentanglement",
    "retention",
)


def print_leaderboard(cfg: DictConfig) -> None:
    """Print the leaderboard of a sweep and write its files."""
    if cfg.sweep is None:
        raise SpectangleError("sweep is missing; give the folder of a sweep: spectangle report sweep=runs/paper_grid.")
    board = Leaderboard(cfg.sweep)
    print_table(board.text(cfg.limit, cfg.hide_failed))
    try:
        write_report(board)
        console.print(f"written: {board.folder}/report.html, results.csv, results.ecsv", markup=False)
    except SpectangleError as error:  # somebody else's sweep, or a full disk: the table is there all the same
        console.print(f"not written: {error}", markup=False)
    if command := dashboard_command(board):
        console.print(f"the study in Optuna's dashboard: {command}", markup=False)


def print_difference(cfg: DictConfig) -> None:
    """Print what differs between runs."""
    if len(cfg.runs) < 2:
        raise SpectangleError(
            "kind=diff compares runs; give at least two: spectangle report kind=diff runs=[RUN1,RUN2]."
        )
    runs = [Run(path) for path in cfg.runs]
    names = [run.path.name for run in runs]
    if len(set(names)) < len(names):  # seeds of several configurations
        paths = [run.path.resolve() for run in runs]
        common = os.path.commonpath(paths)
        names = [os.path.relpath(path, common) for path in paths]
    print_table(difference_table("What was chosen", names, _choices(runs)))
    measured = [
        {k: v for k, v in run.metrics.items() if not k.startswith(QUIET)} if run.finished else {} for run in runs
    ]
    print_table(difference_table("What came out", names, measured))


def _choices(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What each run chose, with facts of its manifest. What was written differently may come to the same, and then does
    not differ; what was written alike, such as ``${seed}``, follows from another key, which tells.
    """
    written = [flat(run.written_config) for run in runs]
    differ = set(differing(written))
    return [
        {key: value for key, value in own.items() if key not in differ}
        | {key: value for key, value in flat(run.config).items() if key in differ or not _given(key, own)}
        | _facts(run)
        for run, own in zip(runs, written, strict=True)
    ]


def _given(key: str, written: Mapping[str, Any]) -> bool:
    """Whether a key, or one that it lies in, such as ``model.lambdas`` that is ``${lambdas}``, was written."""
    parts = key.split(".")
    return any(".".join(parts[: i + 1]) in written for i in range(len(parts)))


def difference_table(title: str, names: Sequence[str], columns: Sequence[Mapping[str, Any]]) -> Table:
    """Keys whose values differ, with the values side by side: first those that a run is judged by. Where two numbers
    are compared their change, in percent, or where that says nothing (see :func:`_change`) as the difference.
    """
    found, keys = sorted(differing(columns), key=_rank), {key for column in columns for key in column}
    table = Table(title=f"{title}: {len(found)} of {len(keys)} differ", title_justify="left")
    table.add_column("key", overflow="fold")
    for name in names:
        table.add_column(escape(name), justify="right", overflow="fold")
    if len(columns) == 2:
        table.add_column("change", justify="right")
    for key in found:
        values = [column.get(key) for column in columns]
        table.add_row(
            escape(key),
            *(escape(_word(value)) for value in values),
            *([_change(key, *values)] if len(columns) == 2 else []),
        )
    return table


def _facts(run: Run) -> dict[str, Any]:
    """What the manifest knows that the config does not."""
    try:
        manifest = run.manifest
    except SpectangleError:
        return {}
    return {
        "survey hash": manifest.get("survey", {}).get("content_hash"),
        "commit": manifest.get("git", {}).get("commit"),
        "host": manifest.get("host"),
        "threads used": manifest.get("threads"),
    }


def _word(value: Any) -> str:
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _change(key: str, a: Any, b: Any) -> str:
    """How much one number is another one: in percent of the first, but as the difference where that is 0, has another
    sign, or may by chance be next to 0, as R2 and means of residuals.
    """
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (a, b)):
        return ""
    if a * b <= 0 or any(part.startswith(ABOUT_ZERO) for part in key.split("/")):
        return f"{b - a:+.4g}"
    return f"{100 * (b - a) / abs(a):+.1f} %"


def _rank(key: str) -> tuple[int, str]:
    """Place of a key: what the regressor finds on test stars, excess, R2 of all probes together, then the others."""
    first, last = key.split("/")[0], key.split("/")[2:]
    return (0 if first == "test" else 1 if first == "excess" else 2 if first == "probe" and last == ["r2"] else 3, key)


def print_table1(cfg: DictConfig) -> None:
    """Print Table 1 of the paper from the runs of a sweep and write its report."""
    from spectangle.reports.table1 import print as table1  # it loads torch

    table1.print_table1(cfg)


def print_frontier(cfg: DictConfig) -> None:
    """Print and draw what a sweep's runs kept against what they leaked, on validation stars."""
    from spectangle.reports import frontier  # it loads matplotlib

    frontier.print_frontier(cfg)


def print_folds(cfg: DictConfig) -> None:
    """Print what the runs of a cross-validation found, with the spread over folds, and draw it."""
    from spectangle.reports.fold_figures import draw_folds
    from spectangle.reports.folds import attribute_fold_table, fold_groups, fold_table

    if cfg.sweep is None:
        raise SpectangleError(
            "sweep is missing; give the folder of a sweep over folds: spectangle report kind=folds sweep=runs/folds."
        )
    narrow = console.is_terminal and console.width < FOLD_COLUMNS
    for title, runs in fold_groups(cfg.sweep).items():
        print_table(fold_table(title, runs, narrow))
        if (attributes := attribute_fold_table(runs, narrow)) is not None:
            print_table(attributes)
        if cfg.figures:
            written = draw_folds(title, runs, Path(cfg.output or cfg.sweep) / "figures", cfg.survey)
            console.print(f"written: {', '.join(map(str, written))}", markup=False)
    if cfg.figures:
        console.print(
            "note: errors in the figures are of all stars together, those in the tables the mean over folds (and "
            "seeds; a figure has the first seed of each fold).",
            markup=False,
        )


def draw_figures(cfg: DictConfig) -> None:
    """Draw the figures of runs again, into their folders."""
    from spectangle.evaluation.run_figures import draw_run

    if not cfg.runs:
        raise SpectangleError(
            "kind=figures draws the figures of runs; give one or more: spectangle report kind=figures runs=[RUN]."
        )
    for path in cfg.runs:
        for written in draw_run(Run(path), survey=cfg.survey):
            console.print(f"written: {written}", markup=False)


KINDS: dict[str, Callable[[DictConfig], None]] = {
    "leaderboard": print_leaderboard,
    "diff": print_difference,
    "table1": print_table1,
    "frontier": print_frontier,
    "folds": print_folds,
    "figures": draw_figures,
}
