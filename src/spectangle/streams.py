"""Output never kills work: a terminal that is gone, a closed pipe or a narrow encoding costs lines, not the run."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Unbreakable", "unbreakable_output"]


class Unbreakable(io.TextIOBase):
    """A text stream that goes nowhere once it is broken.

    Arguments:
        stream: The stream that it stands for.
    """

    def __init__(self, stream: Any):
        self.stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @property
    def encoding(self) -> str:  # pyright: ignore
        return self.stream.encoding

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        try:
            return self.stream.isatty()
        except (OSError, ValueError):
            return False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def close(self) -> None:
        """The stream itself stays open: it is the process's."""

    def _give_up(self) -> None:
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())  # also for what C code prints
            os.close(nowhere)
        except (OSError, ValueError):
            self.stream = open(os.devnull, "w")  # noqa: SIM115


@contextmanager
def unbreakable_output() -> Iterator[None]:
    """Let the block print whatever becomes of standard output and error."""
    open_missing()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Unbreakable(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def open_missing() -> None:
    """Give closed standard streams a place to go: else the next file that is opened would take their number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
