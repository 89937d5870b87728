"""Groups of files to parts in several processes, going on where an earlier run stopped."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path

from spectangle.archives.convert import Job, convert, part_path
from spectangle.console import console, progress_bar
from spectangle.errors import SpectangleError

__all__ = ["read_spectra"]


def read_spectra(job: Job, groups: Sequence[Sequence[Path]], workers: int) -> list[Path]:
    """Convert groups of files to parts, in parallel; return the parts in the order of the files."""
    job.folder.mkdir(parents=True, exist_ok=True)
    digest = job.digest()
    parts = [part_path(job, digest, paths) for paths in groups]
    todo = [(paths, part) for paths, part in zip(groups, parts, strict=True) if not part.is_file()]
    if len(todo) < len(parts):
        console.print(f"Going on: {len(parts) - len(todo)} of {len(parts)} groups of files were read before.")
    with progress_bar() as progress:
        task = progress.add_task("reading spectra", total=len(todo))
        for _ in _run(job, todo, min(workers, len(todo))):
            progress.advance(task)
    return parts


def _run(job: Job, todo, workers: int) -> Iterator[Path]:
    if workers <= 1:
        for paths, part in todo:
            yield convert(job, paths, part)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_remember, initargs=(job,))
    try:
        for future in as_completed([pool.submit(_convert_remembered, paths, part) for paths, part in todo]):
            yield future.result()
    except BrokenProcessPool:
        raise SpectangleError(
            "A process that read spectra was killed, most likely because memory ran out; use workers=1. Run the "
            "same command again: it goes on."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_job: Job | None = None  # of a worker process: sent once, not with every group


def _remember(job: Job) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent answers it
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End a worker whose parent was killed; it would wait for work for ever."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def _convert_remembered(paths, part: Path) -> Path:
    assert _job is not None
    return convert(_job, paths, part)
