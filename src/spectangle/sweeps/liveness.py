"""Which workers are alive: each keeps one small file, and the file's age, its process or its SLURM job tells.

A worker on this machine is asked for by its process; one on another node by its SLURM job and by its heartbeat, the
modification time of its file. Times are compared with that of a file written by the observer, because the clocks of
nodes and file server differ.
"""

import json
import os
import platform
import shutil
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path

from spectangle.outputs import write_beside

__all__ = ["WorkerRecord", "alive", "job_states", "living_workers", "place", "process_start"]

BEATS = 12  # heartbeats that may be missed; a file server may hide one for a minute
ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


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
        self.facts = {"place": place(), "pid": os.getpid(), "start": process_start(os.getpid()), "heartbeat_s": heartbeat_s, "slurm_job": job}
        self.child = None
        self.write()

    def write(self) -> None:
        write_beside(self.path, json.dumps(self.facts | {"child": self.child}) + "\n")

    def set_child(self, pid: int | None) -> None:
        """Note the process of the run, so that nobody starts the same run beside it."""
        self.child = None if pid is None else [pid, process_start(pid)]
        self.write()

    def beat(self) -> None:
        if time.monotonic() - self._last >= self.heartbeat_s:
            self._last = time.monotonic()
            try:
                os.utime(self.path)
            except FileNotFoundError:
                self.write()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def living_workers(folder: Path) -> set[str]:
    """Names of the workers that are alive; the files of dead ones are removed."""
    living = set()
    for path in sorted((folder / "workers").glob("*.json")):
        if alive(path):
            living.add(path.stem)
        else:
            path.unlink(missing_ok=True)
    return living


def alive(path: Path) -> bool:
    """Whether the worker of a record, or a run that it left behind, is still at work; asked twice before it is given up."""
    return _alive(path) or (time.sleep(0.1), _alive(path))[1]


def _alive(path: Path) -> bool:
    try:
        facts, modified = json.loads(path.read_text()), path.stat().st_mtime
    except OSError:
        return False
    except json.JSONDecodeError:
        return True
    if facts["place"] == place():
        return _runs(facts["pid"], facts["start"]) or bool(facts["child"] and _runs(*facts["child"]))
    if facts["slurm_job"] and job_states([facts["slurm_job"]]).get(facts["slurm_job"]) in ENDED:
        return False
    return _now(path.parent) - modified < BEATS * facts["heartbeat_s"]


def job_states(jobs: list[str]) -> dict[str, str]:
    """States of SLURM jobs; nothing where there is no SLURM."""
    if not jobs or shutil.which("squeue") is None:
        return {}
    states = {}
    for job in jobs:  # one by one: a single forgotten id makes squeue refuse the whole list
        answer = subprocess.run(["squeue", "-h", "-t", "all", "-j", job, "-o", "%T"], capture_output=True, text=True)
        if answer.returncode == 0 and answer.stdout.strip():
            states[job] = answer.stdout.split()[0]
        elif "Invalid job id" in answer.stderr or answer.returncode == 0:
            states[job] = "COMPLETED"  # so long ago that it was forgotten
        else:
            states[job] = "UNKNOWN"  # the controller does not answer
    return states


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
    """The file server's time."""
    probe = folder / f".clock-{os.getpid()}"
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink(missing_ok=True)
    return now
