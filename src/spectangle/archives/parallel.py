"""Groups of files to parts in several processes, going on where an earlier run stopped."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from spectangle.archives.convert import Job, convert, part_path
from spectangle.console import console, progress_bar
from spectangle.processes import in_processes

__all__ = ["read_spectra"]


def read_spectra(job: Job, groups: Sequence[Sequence[Path]], workers: int) -> list[Path]:
    """Convert groups of files to parts, in parallel; return the parts in the order of the files."""
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        return _read(job, groups, workers)
    finally:
        with suppress(OSError):  # it holds parts, for the survey or for the next run
            job.folder.rmdir()


def _read(job: Job, groups: Sequence[Sequence[Path]], workers: int) -> list[Path]:
    digest = job.digest()
    parts = [part_path(job, digest, paths) for paths in groups]
    todo = [(paths, part) for paths, part in zip(groups, parts, strict=True) if not part.is_file()]
    if len(todo) < len(parts):
        console.print(f"Going on: {len(parts) - len(todo)} of {len(parts)} groups of files were read before.")
    with progress_bar() as progress:
        task = progress.add_task("reading spectra", total=len(todo))
        for _ in in_processes(convert, job, todo, workers, "use workers=1 and run the same command again: it goes on."):
            progress.advance(task)
    return parts
