"""Cross-validation: what the runs of a sweep over folds (and seeds) found of each label, with mean and spread over the
folds.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from spectangle.configs.label_lambdas import FATES, fate
from spectangle.configs.nested import flat
from spectangle.errors import SpectangleError
from spectangle.metrics import number
from spectangle.runs.entry import named
from spectangle.runs.folder import Run
from spectangle.runs.sweep_folder import list_runs

__all__ = ["attribute_fold_table", "fold_groups", "fold_table"]

APART = ("data.fold", "seed", "threads", "logger", "callbacks")  # what the runs of one experiment may differ in
NARROW: dict[str, Any] = {"box": SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False}


def fold_groups(folder: str | Path) -> dict[str, list[Run]]:
    """Finished runs below a folder by experiment, named by what it keeps and loses, and numbered where that is not
    enough.

    Raises:
        SpectangleError: None is finished, or none has folds.
    """
    runs = [run for run in list_runs(folder) if run.finished]
    runs = [run for run in runs if run.config.get("data", {}).get("folds")]
    if not runs:
        raise SpectangleError(
            f"{folder} has no finished run with data.folds; make some: spectangle train sweep=folds data.path=my.h5."
        )
    groups: dict[str, list[Run]] = {}
    for run in runs:
        # as it was written: seeds of other parts that refer to the seed are no other experiment
        choices = {key: value for key, value in flat(run.written_config).items() if not named(key, APART)}
        groups.setdefault(repr(sorted(choices.items(), key=str)), []).append(run)
    titles = [_title(members[0]) for members in groups.values()]
    numbered = [
        f"{title} ({titles[: i + 1].count(title)})" if titles.count(title) > 1 else title
        for i, title in enumerate(titles)
    ]
    return dict(zip(numbered, groups.values(), strict=True))


def fold_table(title: str, runs: Sequence[Run], narrow: bool = False) -> Table:
    """Labels as rows: MAE from spectra and latent, R2 of the probes, floor and excess; mean and standard deviation over
    folds.

    Seeds of one fold are averaged first, so that the spread is that of the folds. A narrow table has spreads and units
    in a second line of its cells.
    """
    folds = _by_fold(runs)
    whole = runs[0].config["data"]["folds"]
    seeds = len({run.config.get("seed", 0) for run in runs})
    heading = f"{title}: {len(folds)} of {whole} folds" + (f", {seeds} seeds" if seeds > 1 else "")
    table = Table(title=escape(heading), title_justify="left", **(NARROW if narrow else {}))
    bound = "excess\n(at most)" if any(fold.get("excess_is_upper_bound") for fold in folds.values()) else "excess"
    for name in (
        "label",
        "in the latent",
        "MAE, spectra",
        "MAE, latent",
        "latent / spectra",
        "probes R2",
        "floor",
        bound,
    ):
        _add_column(table, name, narrow, left=name in ("label", "in the latent"))
    lambdas = {name: float(value or 0) for name, value in runs[0].config["lambdas"].items()}
    labels = sorted(
        {path.split("/")[2] for path in next(iter(folds.values())) if path.startswith("test/latent/")},
        key=list(lambdas).index,
    )
    stars = {label: sum(_values(folds, f"probe/{label}/stars")) for label in labels}
    differ = len(set(stars.values())) > 1  # some stars lack labels
    if differ:
        _add_column(table, "stars", narrow)
    for label in labels:
        unit = runs[0].units.get(label, "")
        paths = (f"test/spectra/{label}/mae", f"test/latent/{label}/mae")
        ratio = [fold[paths[1]] / fold[paths[0]] for fold in folds.values() if paths[0] in fold]
        cells = [_spread(_values(folds, path), unit) for path in paths] + [_spread(ratio)]
        cells += [_spread(_values(folds, path)) for path in (f"probe/{label}/r2", f"floor/{label}", f"excess/{label}")]
        cells += [f"{stars[label]:,.0f}"] if differ else []
        cells = [f"{label} [{unit}]" if unit else label, fate(lambdas[label]), *cells]
        table.add_row(*(escape(_two_lines(cell) if narrow else cell) for cell in cells))
    return table


def attribute_fold_table(runs: Sequence[Run], narrow: bool = False) -> Table | None:
    """Attributes, such as the instrument, as rows: balanced accuracy of the probes beside chance, and the excess in R2;
    mean and standard deviation over folds. None: the runs have none.
    """
    folds, lambdas = _by_fold(runs), runs[0].config["lambdas"]
    attributes = (runs[0].config.get("labels") or {}).get("attributes") or ()
    if not attributes:
        return None
    table = Table(title="Attributes of the same runs", title_justify="left", **(NARROW if narrow else {}))
    for name in ("attribute", "in the latent", "balanced accuracy", "chance", "excess", "stars"):
        _add_column(table, name, narrow, left=name in ("attribute", "in the latent"))
    for name in attributes:
        paths = (f"probe/{name}/balanced_accuracy", f"probe/{name}/chance", f"excess/{name}")
        cells = [_spread(_values(folds, path)) for path in paths]
        stars = sum(_values(folds, f"probe/{name}/stars"))
        cells = [name, fate(lambdas.get(name)), *cells, f"{stars:,.0f}"]
        table.add_row(*(escape(_two_lines(cell) if narrow else cell) for cell in cells))
    return table


def _add_column(table: Table, heading: str, narrow: bool, left: bool = False) -> None:
    """A column that is never cut: in a terminal that is too narrow even so, its words are broken."""
    words = heading.replace(", ", ",\n").replace(" ", "\n") if narrow else heading
    table.add_column(words, no_wrap=not narrow, overflow="fold", justify="left" if left else "right")


def _two_lines(cell: str) -> str:
    """A cell with its spread, or its unit, below."""
    return cell.replace(" \N{PLUS-MINUS SIGN}", "\n\N{PLUS-MINUS SIGN}").replace(" [", "\n[")


def _by_fold(runs: Sequence[Run]) -> dict[int, dict[str, float]]:
    """Metrics of each fold, averaged over its seeds."""
    found: dict[int, list[Mapping[str, float]]] = {}
    for run in runs:
        found.setdefault(int(run.config["data"]["fold"]), []).append(run.metrics)
    return {
        fold: {
            path: statistics.fmean(one[path] for one in members)
            for path in members[0]
            if all(path in one for one in members)
        }
        for fold, members in sorted(found.items())
    }


def _values(folds: Mapping[int, Mapping[str, float]], path: str) -> list[float]:
    return [fold[path] for fold in folds.values() if path in fold]


def _spread(values: Sequence[float], unit: str = "") -> str:
    if not values:
        return ""
    mean = number(statistics.fmean(values), unit)
    return f"{mean} ± {number(statistics.stdev(values), unit)}" if len(values) > 1 else mean


def _title(run: Run) -> str:
    lambdas = run.config["lambdas"]
    parts = [
        f"{word} {', '.join(names)}"
        for word in FATES
        if (names := [name for name, value in lambdas.items() if fate(value) == word])
    ]
    return "; ".join(parts)
