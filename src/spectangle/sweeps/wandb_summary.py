"""The summary of a sweep as a W&B run of its own: leaderboard, Pareto front and importance, brought up to date while it
runs.

It runs in a process beside the sweep, so that the sweep neither waits for W&B nor hands its connection on to its
workers.
"""

import json
import logging
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from spectangle.errors import SpectangleError
from spectangle.sweeps.leaderboard import Leaderboard
from spectangle.sweeps.leaderboard_page import importance
from spectangle.tracking.connection import choose_mode
from spectangle.tracking.identity import identify_sweep
from spectangle.tracking.record import staged_in

__all__ = ["follow", "summarized", "tables"]

log = logging.getLogger(__name__)
EVERY_S = 60
FAREWELL_S = 180  # what the last update may take


@contextmanager
def summarized(folder: Path, cfg: DictConfig) -> Iterator[None]:
    """Keep the summary run of a sweep up to date meanwhile; nothing if its runs do not go to W&B."""
    options: Any = cfg.get("logger") or {}
    if not str(options.get("_target_", "")).endswith("WandbRun"):
        yield
        return
    arguments = {
        "folder": str(folder),
        "project": options.project,
        "entity": options.get("entity"),
        "mode": options.mode,
        "timeout_s": options.timeout_s,
    }
    command = [sys.executable, "-m", "spectangle.sweeps.wandb_summary", json.dumps(arguments)]
    follower = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        assert follower.stdin is not None
        with suppress(OSError):
            follower.stdin.close()  # it sends the last state and ends
        try:
            follower.wait(FAREWELL_S)
        except subprocess.TimeoutExpired:
            follower.kill()


def follow(folder: Path, project: str, entity: str | None, mode: str, timeout_s: float) -> None:
    """Update the summary run each minute until standard input closes. Of several followers of a sweep one does it."""
    ended = False
    lock = FileLock(folder / "wandb" / "summary.lock")
    lock_path = Path(lock.lock_file)
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    while not ended:
        try:
            with lock.acquire(timeout=0):
                return _lead(folder, project, entity, mode, timeout_s)
        except Timeout:
            ended = bool(select.select([sys.stdin], [], [], EVERY_S)[0])


def _lead(folder: Path, project: str, entity: str | None, mode: Any, timeout_s: float) -> None:
    import wandb

    from spectangle.tracking.offline_runs import note_synced
    from spectangle.tracking.wandb_files import segments, wait_for_end
    from spectangle.tracking.wandb_run import settings

    who, mode = identify_sweep(folder), choose_mode(mode)[0]
    run = wandb.init(
        id=who.id,
        name=who.name,
        group=who.group,
        job_type="sweep-summary",
        project=project,
        entity=entity,
        dir=str(folder),
        mode=mode,
        resume="allow" if who.started > 1 and mode == "online" else None,
        settings=settings(timeout_s),
    )
    run.define_metric("sweep/done", hidden=True)
    run.define_metric("sweep/*", step_metric="sweep/done")
    said, ended = None, False
    while not ended:
        ended = bool(select.select([sys.stdin], [], [], EVERY_S)[0])
        said = _update(run, folder, said)
    run.finish()
    wait_for_end(segments(folder)[-1])
    if mode == "online":
        note_synced(folder)


def _update(run: Any, folder: Path, said: Any) -> Any:
    """Send the state of the sweep if it is another one than what was said."""
    import wandb

    try:
        board = Leaderboard(folder)
    except SpectangleError:  # no run yet
        return said
    counts = board.counts()
    if counts == said:
        return said
    best = {
        f"sweep/best/{name}": board.entries[0].values[i]
        for i, name in enumerate(board.objectives)
        if board.entries[0].values
    }
    done = sum(counts.get(state, 0) for state in ("complete", "pruned", "failed"))
    media = {
        f"sweep/{name}": wandb.Table(columns=list[Any](columns), data=rows)
        for name, (columns, rows) in tables(board).items()
    }
    with staged_in(folder):
        run.log(
            {"sweep/done": done}
            | {f"sweep/{state}": count for state, count in counts.items() if state != "done"}
            | best
            | media
        )
    run.summary.update(
        {"objectives": board.objectives, "directions": board.directions, "updated": time.strftime("%Y-%m-%d %H:%M:%S")}
    )
    return counts


def tables(board: "Leaderboard") -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Leaderboard, Pareto front and importance of the parameters, as columns and rows."""
    columns = [
        *board.columns(),
        *(
            name
            for name in board.metric_names
            if name.startswith(("test/latent", "probe/", "disentanglement/", "excess/"))
        ),
    ]
    rows = [
        [*row, *(entry.metrics.get(name) for name in columns[len(row) :])]
        for row, entry in zip(board.rows(), board.entries, strict=True)
    ]
    rows = [
        [value if value is None or isinstance(value, (int, float)) else str(value) for value in row] for row in rows
    ]
    front = [row for row, entry in zip(rows, board.entries, strict=True) if entry.front]
    weights = [
        [name, key, value] for i, name in enumerate(board.objectives) for key, value in importance(board, i).items()
    ]
    found = {"leaderboard": (columns, _same_kinds(rows)), "pareto": (columns, _same_kinds(front))}
    return found | ({"importance": (["objective", "parameter", "importance"], weights)} if weights else {})


def _same_kinds(rows: list[list[Any]]) -> list[list[Any]]:
    """Columns of one kind, as W&B's tables ask for: text where a column has any."""
    texts = [any(isinstance(row[i], str) for row in rows) for i in range(len(rows[0]))] if rows else []
    return [
        [str(value) if text and value is not None else value for value, text in zip(row, texts, strict=True)]
        for row in rows
    ]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    follow(Path(given.pop("folder")), **given)
