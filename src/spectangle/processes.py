"""Pieces of work in several processes, which end with the one that started them, and the memory that there is for
processes.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from spectangle.errors import SpectangleError

__all__ = ["free_memory_gb", "in_processes"]


def in_processes(
    function: Callable[..., Any], shared: Any, pieces: Sequence[tuple], workers: int, advice: str
) -> Iterator[tuple[int, Any]]:
    """Yield the place of each piece and ``function(shared, *piece)``, as they get done; with one worker or one piece,
    in this process. Who stops asking, or is interrupted, ends them at once.

    Arguments:
        function: Of a module: the processes import it.
        shared: What every piece needs; sent to each process once.
        pieces: The other arguments.
        workers: Processes.
        advice: What to do if one of them was killed.

    Raises:
        SpectangleError: A process ended before its work did.
    """
    if min(workers, len(pieces)) <= 1:
        for place, piece in enumerate(pieces):
            yield place, function(shared, *piece)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(pieces)), get_context("spawn"), initializer=_remember, initargs=(function, shared)
    )
    try:
        places = {pool.submit(_done, piece): place for place, piece in enumerate(pieces)}
        for future in as_completed(places):
            yield places[future], future.result()
    except (BrokenProcessPool, BrokenPipeError) as error:
        reason = "A process was killed, most likely because memory ran out"
        raise SpectangleError(f"{reason}; {advice}") from error
    except BaseException:  # an error, Ctrl-C, SIGTERM: what is begun may take minutes
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def free_memory_gb() -> float:
    """Memory that this machine, or this job's allocation of it, can still give."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * float(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):
        free = 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allocated = os.environ.get("SLURM_MEM_PER_NODE")
    return min(free, 2**20 * float(allocated) if allocated else free) / 1e9


_function: Callable[..., Any] | None = None  # of a worker process, with what its pieces share
_shared: Any = None


def _remember(function: Callable[..., Any], shared: Any) -> None:
    global _function, _shared
    _function, _shared = function, shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent answers it
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End a worker whose parent was killed; it would wait for work for ever."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def _done(piece: tuple) -> Any:
    assert _function is not None
    return _function(_shared, *piece)
