"""What a person sees: one console, shared by log lines, progress bars and tables."""

import logging

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["WIDEST", "ConsoleHandler", "console", "print_table", "progress_bar", "render"]

WIDEST = 300  # characters of a table; a terminal that is narrower breaks its lines

console = Console(soft_wrap=True, highlight=False)


class ConsoleHandler(logging.Handler):
    """Print log lines above a progress bar, not through it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            console.print(self.format(record), markup=False)
        except Exception:  # a line that cannot be shown is in train.log
            self.handleError(record)


def progress_bar(**options) -> Progress:
    """A bar with count and remaining time; nothing where the output is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal, **options)


def print_table(table: RenderableType) -> None:
    """Print a table as wide as the terminal; elsewhere as wide as it needs, up to 140 columns."""
    wide = console if console.is_terminal else Console(width=140, soft_wrap=True, highlight=False)
    wide.print(table)


def render(item: RenderableType, width: int = WIDEST) -> str:
    """Render a table as plain text, for a log line: as wide as it needs, since the log is the only place that has it
    whole.
    """
    plain = Console(width=width, highlight=False, color_system=None)
    with plain.capture() as capture:
        plain.print(item)
    return capture.get().rstrip()
