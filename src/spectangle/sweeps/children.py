"""The processes of a sweep: how they begin, and that they end with the one that began them."""

import ctypes
import faulthandler
import getpass
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals

from spectangle.errors import SpectangleError
from spectangle.streams import open_missing

__all__ = [
    "Parcel",
    "begin",
    "die_with_parent",
    "hear_signals",
    "leave_signals_to_parent",
    "redirect",
    "start_method",
]

# Ctrl-C, a closed terminal and a time limit reach every process; who began it decides
OF_ALL = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class Parcel:
    """What a spawned process works on, with Hydra's state, in a file that it opens.

    Through the pipe of multiprocessing it would hold up its parent for ever if it died before it has read: a pipe takes
    64 KB, and the parent has both ends.
    """

    def __init__(self, *items: Any):
        try:
            import cloudpickle  # it can pickle functions of __main__
        except ImportError:
            from joblib.externals import cloudpickle  # pyright: ignore  # comes with scikit-learn

        data = cloudpickle.dumps((items, Singleton.get_state()))
        number, path = tempfile.mkstemp(prefix="spectangle-", suffix=".pickle")
        self.path = Path(path)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(data)
        except OSError:
            self.discard()
            raise

    def open(self) -> Any:
        """Take out what is in it, and take over Hydra's state."""
        items, singletons = pickle.loads(self.path.read_bytes())
        self.discard()
        Singleton.set_state(singletons)
        setup_globals()
        return items

    def discard(self) -> None:
        """Remove the file, of a process that has opened it or never will."""
        self.path.unlink(missing_ok=True)


def start_method(wanted: str | None) -> str:
    """``fork`` where it is safe (Linux), else ``spawn``."""
    if wanted not in (None, "fork", "spawn"):
        raise SpectangleError(f"sweep.start_method is {wanted}; it must be fork, spawn or null.")
    return wanted or ("fork" if sys.platform == "linux" else "spawn")


def begin(process: Any, method: str) -> None:
    """Start a process that signals to all do not end before it can leave them to its parent: it is born with these
    blocked.

    Raises:
        OSError: There is no room for one more.
    """
    if method == "spawn":
        resource_tracker.ensure_running()  # it would be started with the process, and unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_ALL)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """Ignore, in a process that has begun, the signals that reach all processes."""
    for number in OF_ALL:
        signal.signal(number, signal.SIG_IGN)
    hear_signals()


def hear_signals() -> None:
    """Let the signals come, in a process that has begun and knows what to do with them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_ALL)


def die_with_parent(parent: int) -> None:
    """Kill this process when its parent is gone, so that no run goes on beside its own successor."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def redirect(path: Path) -> None:
    """Send everything that the process prints, C code included, into a file of its folder."""
    open_missing()
    sys.stdout.flush()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        file = os.open(path, flags, 0o666)  # the umask decides: in a shared folder a colleague may go on
    except PermissionError:  # a colleague began, whose umask keeps us out of the file, not of the folder
        file = os.open(path.with_stem(f"output-{getpass.getuser()}"), flags, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    faulthandler.enable()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
