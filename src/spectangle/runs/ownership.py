"""Who writes in a run folder: one process at a time; one that was taken for dead finds out before it writes again."""

import json
import logging
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spectangle.errors import SpectangleError
from spectangle.files import write_beside

__all__ = ["Superseded", "check_owner", "owned"]

log = logging.getLogger(__name__)
OWNER = ".owner"  # names the process that may write; whoever finds another name there has been replaced
PATIENCE_S = 20  # a run whose process is killed frees its lock within this time
_tokens: dict[Path, str] = {}


class Superseded(SpectangleError):
    """Another process has taken this run over: what this one would write is of no use any more."""


@contextmanager
def owned(folder: Path, replace: bool = False) -> Iterator[None]:
    """Hold a run folder against every other process.

    Arguments:
        folder: The folder; it is made if need be.
        replace: Take it from a process that still holds it after some seconds: the study of a sweep has declared that
            one dead.

    Raises:
        SpectangleError: Another process holds it.
    """
    folder = folder.resolve()
    _make(folder)
    lock = _lock(folder, PATIENCE_S if replace else 0)
    if lock is None and not replace:
        raise SpectangleError(
            f"{folder} is being trained by {_owner(folder)}; wait for it or stop it, or give another folder: "
            "hydra.run.dir=DIR."
        )
    if lock is None:
        log.warning("%s is taken from %s, which gives no sign of life.", folder, _owner(folder))
    token = uuid.uuid4().hex
    facts = {
        "token": token,
        "pid": os.getpid(),
        "host": platform.node(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    try:
        write_beside(folder / OWNER, json.dumps(facts) + "\n")  # a full disk keeps no lock
        _tokens[folder] = token
        yield
    finally:
        _tokens.pop(folder, None)
        if lock is not None:
            lock.release()


def check_owner(folder: Path) -> None:
    """Before something is written: is this process still the one that may?

    Raises:
        Superseded: It is not. A process that never took the folder is not asked.
        SpectangleError: The folder is not the one that it took.
    """
    token = _tokens.get(folder.resolve())
    if token is None:
        return
    if not (folder / OWNER).exists():
        raise SpectangleError(
            f"{folder} was deleted or moved while this process trained in it; what it knows would be half of a run."
        )
    if (facts := _facts(folder)) and facts.get("token") != token:
        raise Superseded(
            f"{folder} was taken over by {_owner(folder)}: this process was taken for dead. It ends without "
            "writing anything more."
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpectangleError(
            f"{folder} could not be made ({error.strerror}); give a folder that you may write to: hydra.run.dir=DIR."
        ) from error


def _lock(folder: Path, patience_s: float) -> FileLock | None:
    """The lock of a folder, None while another process has it; where the file system knows no locks, one that guards
    nothing.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=patience_s)
    except Timeout:
        return None
    except PermissionError as error:
        raise SpectangleError(
            f"{folder} is not yours to write in ({error.strerror}); give another folder: hydra.run.dir=DIR."
        ) from error
    except (NotImplementedError, OSError) as error:
        log.warning("the file system of %s knows no locks (%s): do not start this run twice at once.", folder, error)
    return lock


def _owner(folder: Path) -> str:
    facts = _facts(folder)
    return f"process {facts['pid']} on {facts['host']} since {facts['since']}" if facts else "another process"


def _facts(folder: Path) -> dict[str, str]:
    try:
        return json.loads((folder / OWNER).read_text())
    except (OSError, ValueError):
        return {}
