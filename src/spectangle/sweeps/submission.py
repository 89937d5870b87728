"""Before jobs are submitted: does the partition exist, will the nodes see the folders, is there room on the disk?"""

import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spectangle.caching import cache_folder
from spectangle.console import console
from spectangle.errors import SpectangleError, did_you_mean

__all__ = ["check_partition", "check_submission", "check_time", "disk_too_small", "not_shared"]

PATIENCE_S = 30
EARLY_S = 60  # by which SLURM may signal before it was asked to
RUN_BYTES = 40e6  # of a run of the paper's size (checkpoints, regressors, figures), until one of this sweep tells
SHARED = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "wekafs",
    "panfs",
    "afs",
    "cifs",
    "smb",
    "9p",
    "virtiofs",
    "gfs2",
    "ocfs2",
    "fuse",
)


def check_submission(folder: Path, options: Mapping[str, Any], runs: int) -> None:
    """Refuse a partition that SLURM does not have; warn of folders that nodes may not see and of a small disk.

    Arguments:
        folder: Sweep folder; it need not be there yet.
        options: Keys of ``conf/hydra/launcher/slurm_workers.yaml``.
        runs: Runs of the whole sweep.

    Raises:
        SpectangleError: There is no such partition, or jobs would have no time to work.
    """
    check_time(options.get("time_min"), options.get("signal_s"))
    nodes = _nodes_by_partition()
    if not {"clusters", "cluster", "M"} & set(options["extra"] or {}):  # then it is another cluster's partition
        check_partition(options["partition"], list(nodes))
    elsewhere = bool(set(nodes.values()) - {os.uname().nodename.split(".")[0]})
    places = {"cache": cache_folder(), "sweep folder": folder, "Python environment": Path(sys.prefix)}
    for sentence in (*not_shared(places, elsewhere), *disk_too_small(folder, runs)):
        console.print(f"warning: {sentence}", markup=False)


def check_time(time_min: Any, signal_s: Any) -> None:
    """Refuse a time limit that leaves a job no time to work; warn where it leaves little.

    Raises:
        SpectangleError: The job would be told to stop before it has started.
    """
    if not all(isinstance(value, (int, float)) for value in (time_min, signal_s)):
        return
    left = 60 * time_min - signal_s - EARLY_S
    if left < -EARLY_S / 2:
        raise SpectangleError(
            f"hydra.launcher.time_min={time_min:g} leaves no time to work: a job gives its run back "
            f"hydra.launcher.signal_s={signal_s:g} seconds before the limit, and SLURM says so up to {EARLY_S} s "
            f"early. Give time_min={math.ceil((signal_s + EARLY_S) / 60) + 10} or more."
        )
    if left < 300:
        console.print(
            f"warning: hydra.launcher.time_min={time_min:g} leaves each start of a job about {max(0, left):.0f} s, "
            "some of them for imports and for the survey; a run goes on from its last whole epoch.",
            markup=False,
        )


def check_partition(wanted: str | None, known: Sequence[str]) -> None:
    """Refuse partitions that SLURM does not have; where it does not answer, sbatch decides.

    Raises:
        SpectangleError: One of them is not there.
    """
    for name in str(wanted or "").split(","):
        if name and known and name not in known:
            hint = did_you_mean(name, known)
            raise SpectangleError(
                f"SLURM has no partition '{name}' (hydra.launcher.partition).{hint} There are: {', '.join(known)}."
            )


def not_shared(places: Mapping[str, Path], elsewhere: bool = True, mounts: str | None = None) -> Iterator[str]:
    """A sentence for each folder that lies where every machine has a disk of its own.

    Arguments:
        places: Folders by what they are.
        elsewhere: Whether jobs may run on other machines; if not, only temporary folders count: a job may get its own.
        mounts: Text of ``/proc/mounts``; None reads it.
    """
    temporary = {Path(name).resolve() for name in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")}
    for what, path in places.items():
        path = path.resolve()
        remedy = "set SPECTANGLE_CACHE to a shared folder" if what == "cache" else "put it into a shared folder"
        if inside := [folder for folder in temporary if path.is_relative_to(folder)]:
            yield (
                f"the {what} {path} lies in {inside[0]}, which every node has for itself: {remedy}, or the jobs do "
                "not find it."
            )
        elif elsewhere and (kind := _file_system(path, mounts)) and not kind.startswith(SHARED):
            yield (
                f"the {what} {path} lies on a disk of this machine ({kind}), which other nodes may not see: {remedy} "
                "if they do not."
            )


def disk_too_small(folder: Path, runs: int) -> Iterator[str]:
    """A sentence if the runs that are to come need more room than there is; finished ones tell how much each takes."""
    done = [
        _size(path.parent) for pattern in ("*/metrics.json", "*/seed=*/metrics.json") for path in folder.glob(pattern)
    ]
    each = statistics.fmean(done) if done else RUN_BYTES
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    need, free = each * max(0, runs - len(done)), shutil.disk_usage(there).free
    if need > free:
        yield (
            f"about {need / 1e9:.3g} GB are needed in {folder} ({each / 1e6:.3g} MB a run), and {free / 1e9:.3g} GB "
            "are free."
        )


def _nodes_by_partition() -> dict[str, str]:
    """Nodes of each partition, as SLURM writes lists of them; nothing where it does not answer."""
    try:
        answer = subprocess.run(
            ["sinfo", "-a", "-h", "-o", "%R %N"], capture_output=True, text=True, timeout=PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = [line.split(maxsplit=1) for line in answer.stdout.splitlines() if line.strip()]
    return {line[0]: line[-1].strip() for line in lines} if answer.returncode == 0 else {}


def _file_system(path: Path, mounts: str | None) -> str:
    """Kind of the file system that a path lies on; empty where that is not known."""
    if mounts is None:
        file = Path("/proc/mounts")
        mounts = file.read_text(errors="replace") if file.is_file() else ""
    found = [line.split()[1:3] for line in mounts.splitlines() if len(line.split()) > 2]
    below = [(Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), place)), kind) for place, kind in found]
    return max(
        ((len(place.parts), number, kind) for number, (place, kind) in enumerate(below) if path.is_relative_to(place)),
        default=(0, 0, ""),
    )[2]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
