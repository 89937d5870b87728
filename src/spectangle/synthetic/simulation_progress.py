r"""Progress of a long job: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]

LINES = 10  # of a whole job, where there is no terminal


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Show how far a job is; the block calls ``advance(steps, note)``."""
    yield from _bar(title, total) if sys.stderr.isatty() else _lines(title, total)


def _bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total)
        yield lambda steps, note="": bars.update(task, advance=steps, description=f"{title} {note}".strip())


def _lines(title: str, total: int) -> Iterator[Callable[..., None]]:
    done = 0

    def advance(steps: int, note: str = "") -> None:
        nonlocal done
        before, done = done * LINES // total, done + steps
        if done * LINES // total > before:
            print(f"{title}: {100 * done // total} % {note}".rstrip(), file=sys.stderr, flush=True)

    yield advance
