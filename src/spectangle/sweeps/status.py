"""What a sweep says: the plan before it starts, and one line while it runs."""

import time
from collections import Counter

from optuna.trial import TrialState
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from spectangle.console import console
from spectangle.runs.sweep_folder import ConfigurationFolder
from spectangle.sweeps.plan import Plan
from spectangle.sweeps.space import identity
from spectangle.sweeps.study import Study, seconds_of

__all__ = ["StatusLine", "describe_plan"]

SHOWN = 40
EVERY_S = 10  # between two lines where the output is not a terminal


class StatusLine:
    """One line: done, running, failed, best so far, time left. On a terminal it stays in place.

    Arguments:
        study: The study to read.
    """

    def __init__(self, study: Study):
        self.study, self._next, self._said = study, 0.0, ""

    def __enter__(self) -> "StatusLine":
        self._live = console.status("") if console.is_terminal else None
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()
        console.print(self.text(), markup=False)

    def update(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (1 if self._live else EVERY_S)
        text = self.text()
        if self._live:
            self._live.update(escape(text))
        elif text != self._said:
            console.print(text, markup=False)
        self._said = text

    def text(self) -> str:
        """The line."""
        states = Counter(_state(attempts) for attempts in self.study.configurations.values())
        failed = len(self.study.failed)
        finished = states["done"] + states["pruned"]
        words = [f"{finished}/{self.study.n_trials} done"] + [
            f"{states[name]} {name}" for name in ("running", "pruned") if states[name]
        ]
        words += [f"{failed} failed"] if failed else []
        words += [best] if (best := self._best()) else []
        return ", ".join(words + ([f"about {left} left"] if (left := self._left(finished + failed)) else []))

    def _best(self) -> str:
        done = [trial for trial in self.study.trials if trial.state == TrialState.COMPLETE]
        names, directions = self.study.plan.objectives, self.study.plan.directions
        if not done or len(names) > 1:
            return ""
        best = (min if directions[0] == "minimize" else max)(done, key=lambda trial: trial.values[0])
        which = ", ".join(f"{key}={value}" for key, value in best.params.items())
        return f"best {names[0]} {best.values[0]:.4g}" + (f" ({which})" if which else "")

    def _left(self, finished: int) -> str:
        seconds = [
            seconds_of(attempts)
            for attempts in self.study.configurations.values()
            if attempts[-1].state == TrialState.COMPLETE and "seconds" in attempts[-1].user_attrs
        ]
        workers = sum(trial.state == TrialState.RUNNING for trial in self.study.trials)
        open_ones = self.study.n_trials - finished
        known = seconds and workers and open_ones > 0  # a sweep that was stopped has no workers
        return duration(open_ones * sum(seconds) / len(seconds) / workers) if known else ""


def describe_plan(plan: Plan) -> RenderableType:
    """The points of a sweep, their folders, what is done already, and about how long the rest takes."""
    table = Table(title=escape(f"{plan.folder}: {plan.n_trials} configurations"), title_justify="left")
    keys = list(plan.space.swept)
    extra = [key for point in plan.grid or [] for key in point if key not in keys]
    keys += list(dict.fromkeys(extra))
    packs = plan.packs
    for name in ("folder", *keys, *(["pack"] if packs else []), "state"):
        table.add_column(escape(name), no_wrap=True)
    records = _records(plan)
    for place, point in enumerate((plan.grid or [])[:SHOWN]):
        name = identity(point)
        cells = [escape(str(point.get(key, ""))) for key in keys] + [str(number) for number in packs[place : place + 1]]
        table.add_row(name, *cells, records.get(name, {}).get("state", "new"))
    if plan.grid is None:
        table.add_row(
            "...",
            *(escape(str(value)) for value in plan.space.swept.values()),
            f"proposed by {plan.sampler['_target_'].rpartition('.')[2]}",
        )
    notes = [f"... and {len(plan.grid) - SHOWN} more"] if plan.grid and len(plan.grid) > SHOWN else []
    return Group(table, *notes, _estimate(plan, records), "Nothing was started (dry_run).")


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _records(plan: Plan) -> dict[str, dict]:
    return {path.parent.name: ConfigurationFolder(path.parent).record for path in plan.folder.glob("*/trial.json")}


def _estimate(plan: Plan, records: dict[str, dict]) -> str:
    seconds = [
        record["seconds"] for record in records.values() if record.get("state") == "complete" and "seconds" in record
    ]
    names = {identity(point) for point in plan.grid} if plan.grid is not None else records.keys()
    left = max(0, plan.n_trials - sum(records.get(name, {}).get("state") in ("complete", "pruned") for name in names))
    if not seconds:
        return f"{left} to run; no run is there yet that would tell how long one takes."
    total = left * sum(seconds) / len(seconds)
    workers = plan.options.workers
    return (
        f"{left} to run, about {duration(sum(seconds) / len(seconds))} each: {duration(total / workers)} with "
        f"{workers} worker(s)."
    )


def _state(attempts: list) -> str:
    last = attempts[-1].state
    return {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.RUNNING: "running"}.get(last, "open")
