"""The folder of a sweep, as far as files say it: ``sweep.json``, and a folder for each configuration with its runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spectangle.files import write_beside
from spectangle.runs.folder import Run, metric_value

__all__ = ["ConfigurationFolder", "list_runs", "sweep_record", "write_sweep_record"]


class ConfigurationFolder:
    """The folder of one configuration of a sweep: its record, and its run or its run per seed."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def record(self) -> dict[str, Any]:
        """Parameters, state and objectives, as far as they are known."""
        try:
            found = json.loads((self.path / "trial.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_record(self, **facts: Any) -> None:
        """Add facts to the record."""
        write_beside(self.path / "trial.json", json.dumps(self.record | facts, indent=2) + "\n")

    def runs(self, seeds: Sequence[int] | None = None) -> list[Run]:
        """The runs of the configuration, one for each seed."""
        paths = [self.path] if seeds is None else [self.path / f"seed={seed}" for seed in seeds]
        return [Run(path, must_exist=False) for path in paths]

    def reject(self, seeds: Sequence[int] | None = None) -> None:
        """Set final numbers that are of no use aside, so that the runs go on from their last checkpoints."""
        for run in self.runs(seeds):
            if run.finished:
                (run.path / "metrics.json").replace(run.path / "metrics.rejected.json")

    def values(self, names: Sequence[str], seeds: Sequence[int] | None = None) -> list[list[float]] | None:
        """Metrics by name of every run, or None while one is not finished or lacks a metric."""
        runs = self.runs(seeds)
        if not all(run.finished for run in runs):
            return None
        rows = [[metric_value(run.metrics, name) for name in names] for run in runs]
        return None if any(value is None for row in rows for value in row) else rows  # pyright: ignore

    def objectives(self, names: Sequence[str], seeds: Sequence[int] | None = None) -> list[float] | None:
        """Metrics by name, their mean over seeds; None while a run is not finished."""
        rows = self.values(names, seeds)
        return None if rows is None else [sum(column) / len(column) for column in zip(*rows, strict=True)]


def write_sweep_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write what a sweep folder holds: ``sweep.json``, for those who read it without its study."""
    write_beside(folder / "sweep.json", json.dumps(dict(facts), indent=2) + "\n")


def sweep_record(folder: Path) -> dict[str, Any]:
    """What a sweep folder holds; nothing for a plain Hydra multirun, and where the file is damaged."""
    try:
        found = json.loads((folder / "sweep.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def list_runs(folder: str | Path) -> Iterator[Run]:
    """Yield every run below a folder, in the order of their paths."""
    for path in sorted(Path(folder).glob("**/.hydra/config.yaml")):
        if not any(
            part.startswith(".") for part in path.parent.parent.relative_to(folder).parts
        ):  # what a sweep has set aside
            yield Run(path.parents[1])
