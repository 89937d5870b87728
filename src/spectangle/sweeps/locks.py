"""The lock of a sweep folder: it works on NFS, is kept alive by its holder, and outlives a dead holder by some
seconds.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spectangle.errors import SpectangleError

__all__ = ["FolderLock", "folder_lock"]

log = logging.getLogger(__name__)
GRACE_S = 10  # a lock that nobody has refreshed for so long is broken
REFRESH_S = 2


class FolderLock:
    """A lock file that is made exclusively, holds its owner's name, and is touched while it is held.

    Arguments:
        path: The lock file.
    """

    def __init__(self, path: Path):
        self.path, self.token = path, uuid.uuid4().hex
        self._released = threading.Event()

    @property
    def held(self) -> bool:
        """Whether it is still ours: a process that was stopped for long may have lost it."""
        return _read(self.path) == self.token

    def acquire(self) -> None:
        seen, since, pause = ("", 0.0), time.monotonic(), 0.001
        while not self._make():
            now = _read(self.path), _modified(self.path)
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > GRACE_S:
                self._break(seen[0])
            time.sleep(pause)
            pause = min(2 * pause, 0.2)
        threading.Thread(target=self._refresh, daemon=True).start()

    def release(self) -> None:
        self._released.set()
        if self.held:
            self.path.unlink(missing_ok=True)
        else:
            log.warning(
                "the lock %s was broken by another worker: this one was held up for more than %d s", self.path, GRACE_S
            )

    def _make(self) -> bool:
        try:
            file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        except OSError as error:
            raise SpectangleError(
                f"{self.path} could not be made ({error.strerror}); the sweep needs a folder that it may write to."
            ) from error
        try:
            with os.fdopen(file, "w") as lock:
                lock.write(self.token)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            raise SpectangleError(f"{self.path} could not be written ({error.strerror}); make room there.") from error
        return True

    def _refresh(self) -> None:
        owner = os.getpid()
        while not self._released.wait(REFRESH_S) and os.getpid() == owner and self.held:
            with suppress(OSError):
                os.utime(self.path)

    def _break(self, token: str) -> None:
        """Remove the lock of a dead holder; of several that wait, one may."""
        claim = self.path.with_name(f"{self.path.name}.{token[:8] or 'empty'}.broken")
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            if time.time() - _modified(claim) > 6 * GRACE_S:  # who meant to break it died as well
                claim.unlink(missing_ok=True)
            return
        try:
            if _read(self.path) == token:
                log.warning("the holder of the lock %s has died; it is broken", self.path)
                self.path.unlink(missing_ok=True)
        finally:
            claim.unlink(missing_ok=True)


@contextmanager
def folder_lock(folder: Path) -> Iterator[FolderLock]:
    """Hold the lock of a sweep folder."""
    lock = FolderLock(folder / "study.lock")
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
