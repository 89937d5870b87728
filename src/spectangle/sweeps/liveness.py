"""Which workers are alive: each keeps one small file, and the file's age, its process or its SLURM job tells.

A worker on this machine is asked for by its process; one on another node by its SLURM job and by its heartbeat, the
modification time of its file. Times are compared with that of a file written by the observer, because the clocks of
nodes and file server differ. The file of a worker that is taken for dead is removed: one that comes back sees it.
"""

import json
import math
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spectangle.files import write_beside
from spectangle.sweeps.jobs import ENDED, job_states

__all__ = ["WorkerRecord", "alive", "living_workers", "place", "process_start"]

BEATS = 12  # heartbeats that may be missed; a file server may hide one for a minute


class WorkerRecord:
    """The file of one worker, ``workers/NAME.json``.

    Arguments:
        folder: Sweep folder.
        heartbeat_s: Seconds between signs of life.
    """

    def __init__(self, folder: Path, heartbeat_s: float):
        job = os.environ.get("SLURM_JOB_ID")
        self.name = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.path = folder / "workers" / f"{self.name}.json"
        self.heartbeat_s, self._last = heartbeat_s, time.monotonic()
        self.facts = {
            "place": place(),
            "pid": os.getpid(),
            "start": process_start(os.getpid()),
            "heartbeat_s": heartbeat_s,
            "slurm_job": job,
        }
        self.children: list = []
        self.write()

    def write(self) -> None:
        write_beside(self.path, json.dumps(self.facts | {"children": self.children}) + "\n")

    def set_children(self, *pids: int) -> None:
        """Note the processes of the runs, so that nobody starts the same runs beside them."""
        self.children = [[pid, process_start(pid)] for pid in pids]
        if self.path.exists():  # a record that was removed is not made again: its worker was taken for dead
            self.write()

    def beat(self) -> bool:
        """Give a sign of life when one is due; return whether nobody has taken this worker for dead."""
        if time.monotonic() - self._last < self.heartbeat_s:
            return True
        try:
            os.utime(self.path)
        except FileNotFoundError:
            return False
        except OSError:  # the file server hangs; the next beat may come through
            pass
        self._last = time.monotonic()
        return True

    @contextmanager
    def beating(self, at_most_s: float = math.inf, revive: bool = False) -> Iterator[None]:
        """Give signs of life while the block does something else, for some seconds at most; ``revive``: also after
        somebody has taken this worker for dead.
        """
        stop, end = threading.Event(), time.monotonic() + at_most_s

        def beat() -> None:
            while not stop.wait(1) and time.monotonic() < end:
                if not self.beat() and revive:
                    self.write()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def living_workers(folder: Path) -> set[str]:
    """Names of the workers that are alive; the files of dead ones are removed. SLURM is asked once for all."""
    records = {path: _facts(path) for path in sorted((folder / "workers").glob("*.json"))}
    living = set()
    for path, answer in _judge(records).items():
        if answer:
            living.add(path.stem)
        else:
            path.unlink(missing_ok=True)
    return living


def alive(path: Path) -> bool:
    """Whether the worker of a record, or a run that it left behind, is still at work."""
    return _judge({path: _facts(path)})[path]


def _judge(records: dict[Path, Any]) -> dict[Path, bool]:
    """Whether each worker is alive; who seems dead is asked for twice."""
    far = {
        facts["slurm_job"] for facts in records.values() if facts and facts["place"] != place() and facts["slurm_job"]
    }
    states = job_states(sorted(far))
    found = {path: _alive(path, facts, states) for path, facts in records.items()}
    if not all(found.values()):
        time.sleep(0.1)
        found |= {path: _alive(path, _facts(path), states) for path, answer in found.items() if not answer}
    return found


def _alive(path: Path, facts: Any, states: dict[str, str]) -> bool:
    if not facts:
        return facts is not None  # a file that is being written is a sign of life, one that is gone is none
    if facts["place"] == place():
        return _runs(facts["pid"], facts["start"]) or any(_runs(*child) for child in facts.get("children", []))
    if states.get(facts["slurm_job"]) in ENDED:
        return False
    try:
        return _now(path.parent) - path.stat().st_mtime < BEATS * facts["heartbeat_s"]
    except OSError:
        return False


def _facts(path: Path) -> dict[str, Any] | None:
    """What a record says: nothing yet where it is not whole, None where it is not there."""
    try:
        return json.loads(path.read_text())
    except OSError:
        return None
    except ValueError:
        return {}


def place() -> str:
    """Where process ids mean something: host, boot and process namespace."""
    parts = [platform.node()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text()[:8], os.readlink("/proc/self/ns/pid")]
    return "/".join(parts)


def process_start(pid: int) -> str | None:
    """When a process started, to tell it from a later one with the same number; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _runs(pid: int, start: str | None) -> bool:
    if Path("/proc/self/stat").exists():
        return start is not None and process_start(pid) == start
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _now(folder: Path) -> float:
    """The file server's time; our own for a folder that we may only read."""
    probe = folder / f".clock-{os.getpid()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
    except OSError:
        return time.time()
    return now
