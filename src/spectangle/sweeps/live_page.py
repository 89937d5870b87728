"""The page of a sweep while it runs: written again from time to time, at a cost that nobody notices."""

import logging
import time
from pathlib import Path

from spectangle.errors import SpectangleError
from spectangle.sweeps.leaderboard import Leaderboard
from spectangle.sweeps.leaderboard_page import write_page

__all__ = ["LivePage"]

log = logging.getLogger(__name__)
EVERY_S = 30
SHARE = 0.02  # of a core's time, at most


class LivePage:
    """Write ``report.html`` when it is due; of several machines that work on a sweep, one does.

    A page that cannot be written costs a word, not the sweep.

    Arguments:
        folder: Sweep folder.
    """

    def __init__(self, folder: Path):
        self.folder, self._due, self._warned = folder, time.monotonic() + EVERY_S, False

    def update(self) -> None:
        begin = time.monotonic()
        if begin < self._due:
            return
        if not self._fresh():
            self.write()
        self._due = time.monotonic() + max(EVERY_S, (time.monotonic() - begin) / SHARE)

    def _fresh(self) -> bool:
        try:
            return time.time() - (self.folder / "report.html").stat().st_mtime < EVERY_S / 2
        except OSError:
            return False

    def write(self) -> None:
        """Write it now, for instance when the sweep stops: the page must not go on saying that it runs."""
        try:
            write_page(Leaderboard(self.folder))
        except SpectangleError:  # nothing has begun, or a full disk: next time
            pass
        except Exception as error:
            if not self._warned:
                log.warning("report.html could not be made while the sweep runs (%s: %s)", type(error).__name__, error)
            self._warned = True
