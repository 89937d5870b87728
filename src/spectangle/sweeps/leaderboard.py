"""The leaderboard of a sweep: its configurations, best first, read from their folders alone.

It can be built at any time, also while the sweep runs, after a crash, or where the study's database is out of reach.
Plain Hydra multiruns have a leaderboard too.
"""

import csv
import io
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from spectangle.configs.nested import differing
from spectangle.errors import SpectangleError
from spectangle.files import write_beside
from spectangle.runs.folder import Run, metric_value
from spectangle.runs.sweep_folder import ConfigurationFolder, list_runs, sweep_record
from spectangle.sweeps.column_words import alike, heading, with_spread
from spectangle.sweeps.liveness import alive

__all__ = ["Entry", "Leaderboard"]

ORDER = {
    "complete": 0,
    "running": 1,
    "waiting": 2,
    "pruned": 3,
    "interrupted": 4,
    "unfinished": 5,
    "lost": 6,
    "failed": 7,
}
FAILED = ("failed", "lost")
DIED = ("it ended with exit code", "it was killed")  # what is known of a process that could not say more


@dataclass
class Entry:
    """One configuration: its parameters, state and objectives, and the metrics of its runs (their mean over seeds)."""

    name: str
    path: Path
    params: dict[str, Any]
    state: str
    values: list[float] | None = None
    spread: list[float] | None = None
    reason: str = ""
    traceback: str = ""
    trial: int = 0
    attempts: int = 1
    seconds: float | None = None
    ended: float | None = None
    front: bool = False
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def last_error(self) -> str:
        """Why it failed, in a line; of a process that died without a word, also the last line that it printed."""
        lines = [line.strip() for line in self.traceback.splitlines() if line.strip()]
        said = f"; its last line: {lines[-1]}" if lines and self.reason.startswith(DIED) else ""
        return " ".join((self.reason or "no reason is known").split()) + said


class Leaderboard:
    """Read a sweep.

    Arguments:
        folder: Sweep folder, or the folder of a plain Hydra multirun.

    Raises:
        SpectangleError: There is no run in the folder.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()
        self.record = sweep_record(self.folder)
        entries = self._configurations() if self.record else self._plain_runs()
        if not entries:
            raise SpectangleError(f"{self.folder} holds no runs yet; give the folder of a sweep (hydra.sweep.dir).")
        self.objectives: list[str] = self.record.get("objectives") or self._plain_objectives()
        self.directions: list[str] = self.record.get("directions") or ["minimize"] * len(self.objectives)
        self._judge(entries)
        self.entries = sorted(entries, key=self._rank)

    @property
    def varying(self) -> list[str]:
        """Parameters that differ between configurations, in the order of the search space."""
        found = differing([entry.params for entry in self.entries])
        return [key for key in dict.fromkeys([*self.record.get("swept", []), *found]) if key in found]

    def columns(self) -> list[str]:
        return ["rank", "configuration", *self.varying, *self.objectives, "state", "seconds", "attempts", "reason"]

    def rows(self, hide_failed: bool = False) -> list[list[Any]]:
        """One row per configuration, best first; see :meth:`columns`."""
        return [
            [
                index + 1 if entry.values and entry.state == "complete" else None,
                entry.name,
                *(entry.params.get(key) for key in self.varying),
                *(entry.values or [None] * len(self.objectives)),
                entry.state,
                entry.seconds,
                entry.attempts,
                entry.last_error if entry.state in FAILED else " ".join(entry.reason.split()),
            ]
            for index, entry in enumerate(self.entries)
            if not (hide_failed and entry.state in FAILED)
        ]

    def text(self, limit: int = 30, hide_failed: bool = False) -> RenderableType:
        """The leaderboard for a terminal, below it how it was measured if that is worth a word, and why configurations
        failed.
        """
        failures = None if hide_failed else self.failures(limit)
        note = [escape(self.note)] if self.note else []
        return Group(self.table(limit, hide_failed), *note, *([] if failures is None else [failures]))

    @property
    def note(self) -> str:
        """That some probes were left out, or only in a part of the configurations."""
        measured = [entry for entry in self.entries if entry.metrics]
        without = sum(bool(entry.metrics.get("probe/left_out")) for entry in measured)
        if not without:
            return ""
        who = "Latents" if without == len(measured) else f"Latents of {without} of {len(measured)} configurations"
        return f"{who} were probed without probes.gpu_packs_without (packs on a GPU; probes=full asks all)."

    def table(self, limit: int = 30, hide_failed: bool = False) -> Table:
        """The configurations, never wider than the page; a star marks the Pareto front of several objectives."""
        counts = ", ".join(f"{count} {state}" for state, count in self.counts().items())
        table = Table(
            title=escape(f"{self.folder}: {counts}"),
            title_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column("", no_wrap=True)
        table.add_column("configuration", no_wrap=True)
        shown = [entry for entry in self.entries if not (hide_failed and entry.state in FAILED)]
        for key in self.varying:
            table.add_column(escape(heading(key)), overflow="fold")
        for name, direction in zip(self.objectives, self.directions, strict=True):
            table.add_column(
                escape(heading(name)) + (" ↓" if direction == "minimize" else " ↑"), justify="right", overflow="fold"
            )
        for index, (entry, cells) in enumerate(zip(shown[:limit], self._cells(shown[:limit]), strict=True)):
            place = "*" if entry.front and len(self.objectives) > 1 else str(index + 1)
            mark = place if entry.state == "complete" else entry.state
            table.add_row(mark, entry.name, *map(escape, cells), style="dim" if entry.state in FAILED else None)
        if len(shown) > limit:
            table.caption = f"{len(shown) - limit} more in results.csv; limit=N shows more"
        return table

    def _cells(self, entries: Sequence[Entry]) -> list[tuple[str, ...]]:
        """What each chose and found, in words."""
        columns = [alike([entry.params.get(key) for entry in entries]) for key in self.varying]
        for i in range(len(self.objectives)):
            texts = alike([entry.values[i] if entry.values else None for entry in entries])
            spreads = [entry.spread[i] if entry.spread else None for entry in entries]
            columns.append([with_spread(text, spread) for text, spread in zip(texts, spreads, strict=True)])
        return list(zip(*columns, strict=True))

    def failures(self, limit: int = 30) -> Table | None:
        """The last error of each configuration that failed or was lost; None where there is none."""
        failed = [entry for entry in self.entries if entry.state in FAILED]
        if not failed:
            return None
        table = Table(
            title="Why they failed",
            title_justify="left",
            show_header=False,
            box=None,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for entry in failed[:limit]:
            table.add_row(entry.name, escape(entry.last_error))
        if len(failed) > limit:
            table.caption = f"{len(failed) - limit} more in results.csv; limit=N shows more"
        return table

    def counts(self) -> dict[str, int]:
        """Configurations by state; those that have not begun are ``waiting``."""
        found = {state: sum(entry.state == state for entry in self.entries) for state in ORDER}
        found["waiting"] += max(0, (self.record.get("n_trials") or 0) - len(self.entries))
        return {state: count for state, count in found.items() if count}

    def write_tables(self) -> None:
        """Write results.csv and results.ecsv into the sweep folder."""
        columns = self.columns() + self.metric_names
        rows = [
            row + [entry.metrics.get(name) for name in self.metric_names]
            for row, entry in zip(self.rows(), self.entries, strict=True)
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([columns, *(["" if value is None else value for value in row] for row in rows)])
        write_beside(self.folder / "results.csv", text.getvalue())
        write_beside(self.folder / "results.ecsv", _ecsv(columns, rows, {"sweep": str(self.folder)} | self.record))

    @property
    def metric_names(self) -> list[str]:
        """Every metric that a run has measured, without the objectives."""
        return sorted({name for entry in self.entries for name in entry.metrics} - set(self.objectives))

    def _configurations(self) -> list[Entry]:
        entries = []
        for path in sorted(self.folder.glob("*/trial.json")):
            folder = ConfigurationFolder(path.parent)
            if facts := folder.record:  # somebody may have deleted what was known when the configuration began
                entries.append(self._entry(folder, {"name": path.parent.name, "params": {}} | facts))
        return entries

    def _entry(self, folder: ConfigurationFolder, facts: dict[str, Any]) -> Entry:
        runs = folder.runs(self.record.get("seeds"))
        state, worker = facts.get("state", "lost"), facts.get("worker")
        values = facts.get("values") or folder.objectives(self.record["objectives"], self.record.get("seeds"))
        if state == "running" and worker and not alive(self.folder / "workers" / f"{worker}.json"):
            state = "complete" if values else "lost"
        if values and not all(math.isfinite(value) for value in values):
            values = None
        known = {
            key: facts[key]
            for key in ("spread", "reason", "traceback", "trial", "attempts", "seconds", "ended")
            if key in facts
        }
        return Entry(facts["name"], folder.path, facts["params"], state, values, metrics=_mean_metrics(runs), **known)

    def _plain_runs(self) -> list[Entry]:
        entries = []
        for run in list_runs(self.folder):
            state = "complete" if run.finished else "unfinished"
            entries.append(
                Entry(
                    str(run.path.relative_to(self.folder)), run.path, run.choices, state, metrics=_mean_metrics([run])
                )
            )
        return sorted(
            entries,
            key=lambda entry: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", entry.name)],
        )

    def _plain_objectives(self) -> list[str]:
        run = next(list_runs(self.folder))
        objective = run.config.get("objective", "val/reconstruction")
        return objective if isinstance(objective, list) else [objective]

    def _judge(self, entries: list[Entry]) -> None:
        """Fill in objectives of plain runs, and mark the configurations that none other beats in every objective."""
        for number, entry in enumerate(entries):
            if not self.record and entry.state == "complete":
                values = [metric_value(entry.metrics, name) for name in self.objectives]
                entry.values, entry.trial = (None if None in values else values), number  # pyright: ignore
                entry.seconds = entry.metrics.get("time/total")
        done = [entry for entry in entries if entry.values and entry.state == "complete"]
        costs = {entry.name: self._costs(entry) for entry in done}
        for entry in done:
            own = costs[entry.name]
            entry.front = not any(
                all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in costs.values()
            )

    def _costs(self, entry: Entry) -> list[float]:
        assert entry.values is not None
        return [
            value if direction == "minimize" else -value
            for value, direction in zip(entry.values, self.directions, strict=True)
        ]

    def _rank(self, entry: Entry) -> tuple:
        costs = self._costs(entry) if entry.values else [math.inf]
        return ORDER.get(entry.state, 9), not entry.front, costs, entry.trial


def _mean_metrics(runs: Sequence[Run]) -> dict[str, float]:
    found = [run.metrics for run in runs if run.finished]
    keys = found[0].keys() if found else ()
    return {
        key: statistics.fmean(metrics[key] for metrics in found)
        for key in keys
        if all(key in metrics for metrics in found)
    }


def _ecsv(columns: Sequence[str], rows: Sequence[Sequence[Any]], meta: dict[str, Any]) -> str:
    """Astropy's text table: typed columns, empty cells where nothing was measured."""
    import numpy as np
    from astropy.table import MaskedColumn
    from astropy.table import Table as AstropyTable

    table = AstropyTable(meta={key: value for key, value in meta.items() if value is not None})
    for index, name in enumerate(columns):
        values = [row[index] for row in rows]
        numeric = all(
            value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values
        )
        data = (
            [float("nan") if value is None else float(value) for value in values]
            if numeric
            else ["" if v is None else str(v) for v in values]
        )
        mask = np.array([value is None for value in values])
        table[name] = MaskedColumn(data, mask=mask) if mask.any() else data
    text = io.StringIO()
    table.write(text, format="ascii.ecsv")
    return text.getvalue()
