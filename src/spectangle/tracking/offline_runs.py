"""Send offline runs to W&B: what is not there yet, oldest first, as often as you like, also while jobs go on.

Every run is sent whole, from its first line: its segments are merged, and W&B writes the same lines to the same places.
So a cut connection, a second try or a run that has grown since never makes a line twice. What was sent is noted beside
the run.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.markup import escape
from rich.table import Table

from spectangle.console import console, progress_bar
from spectangle.errors import SpectangleError
from spectangle.files import write_beside
from spectangle.tracking.connection import check_server
from spectangle.tracking.wandb_files import merge, read, records, segments

__all__ = ["Unsynced", "find", "note_synced", "sync"]

log = logging.getLogger(__name__)
BATCH = 16  # runs for each start of `wandb sync`
CONNECTION = (
    "WANDB_BASE_URL",
    "WANDB_API_KEY",
    "WANDB_IDENTITY_TOKEN_FILE",
    "WANDB_CREDENTIALS_FILE",
    "WANDB_CONFIG_DIR",
    "WANDB_CACHE_DIR",
    "WANDB_DATA_DIR",
)
LIVE_S = 600  # an online run whose file is younger may still be sending itself


@dataclass
class Unsynced:
    """A run that W&B does not have, or not all of it."""

    folder: Path
    files: list[Path]
    sizes: dict[str, int]
    live: bool

    @property
    def name(self) -> str:
        return self.files[-1].stem.removeprefix("run-")


def sync(folder: str | Path | None, list_only: bool = False, timeout_s: float = 3600) -> int:
    """Send every unsynced run below a folder and return how many were sent.

    Arguments:
        folder: A sweep folder, a run folder, or any folder of runs.
        list_only: List them and send nothing.
        timeout_s: Longest time for a batch of runs.

    Raises:
        SpectangleError: The folder is wrong or no run in it was logged for W&B, W&B cannot be reached, or a run was not
            accepted.
    """
    if folder is None or not Path(folder).is_dir():
        what = "No folder was given" if folder is None else f"{folder} is not a folder"
        raise SpectangleError(f"{what}; give a sweep or a run: spectangle sync sweep=runs/paper_grid.")
    if next(_logged(Path(folder)), None) is None:
        raise SpectangleError(
            f"No run in {folder} was logged for W&B; train with logger=wandb, which writes offline where there is no "
            "network."
        )
    found = find(Path(folder))
    console.print(listing(found, Path(folder)) if found else escape(f"Everything in {folder} is at W&B."))
    todo = [item for item in found if not item.live]
    if list_only or not todo:
        return 0
    check_server("for instance the login node")
    failed = [
        message
        for start in range(0, len(todo), BATCH)
        for message in _send(todo[start : start + BATCH], timeout_s, start, len(todo))
    ]
    if failed:
        raise SpectangleError(
            f"{len(failed)} of {len(todo)} runs were not sent; the same command tries them again. The first: "
            f"{failed[0]}"
        )
    return len(todo)


def find(folder: Path) -> list[Unsynced]:
    """Runs with something that W&B does not have, in the order in which they were started."""
    found = []
    for path in _logged(folder):
        files = segments(path.parents[1])
        sizes = {file.parent.name: file.stat().st_size for file in files}
        if any(next(records(file), None) for file in files) and sizes != _noted(path.parents[1]):
            found.append(Unsynced(path.parents[1], files, sizes, _live(files[-1])))
    return sorted(found, key=lambda item: item.files[0].parent.name.removeprefix("offline-"))


def _logged(folder: Path) -> Iterator[Path]:
    """Of each run below a folder that was logged for W&B, the file that says who it is there."""
    return folder.glob("**/wandb/identity.json")


def note_synced(folder: Path, sizes: dict[str, int] | None = None) -> None:
    """Note beside a run that W&B has all of its files, as they are now or as they were when they were read."""
    sizes = {file.parent.name: file.stat().st_size for file in segments(folder)} if sizes is None else sizes
    write_beside(folder / "wandb" / "synced.json", json.dumps(sizes, indent=2) + "\n")


def listing(found: Sequence[Unsynced], folder: Path) -> Table:
    """What is to be sent; the last column says of some why they are not whole."""
    notes = [_note(item) for item in found]
    runs = "1 run" if len(found) == 1 else f"{len(found)} runs"
    table = Table(title=escape(f"{folder}: {runs} that W&B does not have"), title_justify="left")
    for name in ("run", "W&B id", "started", "segments", "kB", *(["note"] if any(notes) else [])):
        table.add_column(name, no_wrap=True, justify="right" if name in ("segments", "kB") else "left")
    for item, note in zip(found, notes, strict=True):
        started = time.strftime(
            "%Y-%m-%d %H:%M", time.strptime(item.files[0].parent.name.removeprefix("offline-")[4:19], "%Y%m%d_%H%M%S")
        )
        below = os.path.relpath(item.folder, folder)
        row = [
            item.folder.resolve().name if below == os.curdir else below,
            item.name,
            started,
            str(len(item.files)),
            f"{sum(item.sizes.values()) / 1000:.0f}",
            *([note] if any(notes) else []),
        ]
        table.add_row(*map(escape, row))
    return table


def _note(item: Unsynced) -> str:
    if item.live:
        return "is sending itself"
    return "" if read(item.files[-1])["exit"] is not None else "goes on, or was cut off"


def _send(items: Sequence[Unsynced], timeout_s: float, before: int, total: int) -> list[str]:
    """Send some runs together and return a sentence for each that W&B did not take."""
    with _staged(items) as (staged, busy):
        failed = [f"{item.folder} is being sent by another process" for item in busy]
        answer = _run_wandb([path for _, path in staged], timeout_s) if staged else ""
        with progress_bar() as bar:
            task = bar.add_task("sending", total=total, completed=before)
            for item, path in staged:
                bar.advance(task)
                if path.with_name(path.name + ".synced").exists():
                    note_synced(item.folder, item.sizes)
                    log.info("sent    %s as %s", item.folder, item.name)
                else:
                    failed.append(f"{item.folder}: {_last_words(answer)}")
                    log.warning("failed  %s", failed[-1])
    return failed


@contextmanager
def _staged(items: Sequence[Unsynced]) -> Iterator[tuple[list[tuple[Unsynced, Path]], list[Unsynced]]]:
    """Merged copies of runs that no other process is sending, each with its media beside it."""
    staged, busy, locks = [], [], []
    try:
        for item in items:
            lock = FileLock(item.folder / "wandb" / "sync.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                busy.append(item)
                continue
            locks.append(lock)
            staged.append((item, _stage(item)))
        yield staged, busy
    finally:
        for item in items:
            if item not in busy:
                shutil.rmtree(_staging_folder(item), ignore_errors=True)
        for lock in locks:
            lock.release()


def _stage(item: Unsynced) -> Path:
    folder = _staging_folder(item)
    shutil.rmtree(folder, ignore_errors=True)
    for segment in item.files:
        for file in (path for path in (segment.parent / "files").glob("media/**/*") if path.is_file()):
            link = folder / "files" / file.relative_to(segment.parent / "files")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())
    return merge(item.files, folder / item.files[-1].name, item.folder)


def _staging_folder(item: Unsynced) -> Path:
    return item.folder / "wandb" / "sending"  # not named like a segment


def _run_wandb(paths: Sequence[Path], timeout_s: float) -> str:
    """Run ``wandb sync`` and return what it said."""
    command = [
        sys.executable,
        "-m",
        "wandb",
        "sync",
        "--include-online",
        "--include-synced",
        *(str(path.resolve()) for path in paths),
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_") or key in CONNECTION}
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=environment, cwd=paths[0].parent
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {timeout_s:.0f} s"
    return answer.stdout + answer.stderr


def _last_words(answer: str) -> str:
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    told = [line for line in lines if "rror" in line or "ailed" in line] or lines
    return told[-1][:300] if told else "wandb sync said nothing"


def _noted(folder: Path) -> dict[str, int]:
    try:
        return json.loads((folder / "wandb" / "synced.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _live(file: Path) -> bool:
    """Whether an online run may still be sending: it has not ended, and its file is young."""
    online = not file.parent.name.startswith("offline-")
    return online and time.time() - file.stat().st_mtime < LIVE_S and read(file)["exit"] is None
