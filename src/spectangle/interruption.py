"""Signals that end a run: each unwinds the program at once, keeps the last checkpoint, and shows in the exit code."""

import signal
import threading
from typing import Any

__all__ = ["Stopped", "stop_on"]


class Stopped(BaseException):
    """A signal asked this process to end.

    Not a KeyboardInterrupt: scikit-learn takes that for the end of a fit, and the run would go on with a half-fitted
    regressor. Not a SystemExit: what exits by itself has its own code.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def stop_on(*numbers: int) -> None:
    """Raise :class:`Stopped` in the main thread when one of these signals comes."""
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            signal.signal(number, _stop)


def _stop(number: int, frame: Any) -> None:
    raise Stopped(number)
