"""Signals that end a run: each unwinds the program at once, keeps the last checkpoint, and shows in the exit code."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Stopped", "ending_signals", "stopping_on"]


class Stopped(BaseException):
    """A signal asked this process to end.

    Not a KeyboardInterrupt: scikit-learn takes that for the end of a fit, and the run would go on with a half-fitted
    regressor. Not a SystemExit: what exits by itself has its own code.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@contextmanager
def stopping_on(*numbers: int) -> Iterator[None]:
    """Raise :class:`Stopped` in the main thread when one of these signals comes while the block runs; what is ignored
    stays ignored.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {
            number: signal.signal(number, _stop) for number in numbers if signal.getsignal(number) != signal.SIG_IGN
        }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def ending_signals(*more: int) -> tuple[int, ...]:
    """The signals that ask this process to end: SIGHUP among them unless ``nohup`` ignores it."""
    hangs_up = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hangs_up, *more)


def _stop(number: int, frame: Any) -> None:
    raise Stopped(number)
