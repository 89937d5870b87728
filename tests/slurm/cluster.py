"""A real SLURM on this machine, started for tests: munged, slurmctld and slurmd, without systemd, cgroups or
accounting.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

__all__ = ["Cluster", "why_not"]

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmctldPort={port}
SlurmdPort={next_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
KillWait=3
MinJobAge=300
InactiveLimit=0
JobRequeue=1
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=off
PartitionName=low Nodes={host} MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=4
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
"""


def why_not() -> str:
    """Why SLURM cannot be started here; empty if it can."""
    missing = [name for name in PROGRAMS if not _program(name)]
    if missing:
        return f"SLURM is not installed: no {', '.join(missing)} (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "slurmd starts jobs as root only"


class Cluster:
    """One machine with four (pretended) CPUs and three partitions: main, and low that high pre-empts.

    Arguments:
        folder: Where all of its files go.
        port: Of slurmctld; the next one is slurmd's.
    """

    def __init__(self, folder: Path, port: int = 26917):
        self.folder, self.host = folder, os.uname().nodename.split(".")[0]
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir(parents=True)
        (folder / "slurm.conf").write_text(CONFIG.format(host=self.host, folder=folder, port=port, next_port=port + 1))
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}

    def start(self) -> "Cluster":
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        munge.chmod(0o711)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self.run("munged", *(f"--{option}={munge / name}" for option, name in files.items()), "--force")
        self.run("slurmctld", "-f", str(self.folder / "slurm.conf"), "-c")
        self._wait(lambda: "UP" in self.run("scontrol", "ping", check=False))
        self.run("slurmd", "-f", str(self.folder / "slurm.conf"), "-c")
        self._wait(lambda: self.run("sinfo", "-h", "-p", "main", "-o", "%T", check=False).startswith("idle"))
        return self

    def stop(self) -> None:
        self.run("scancel", "--user=root", check=False)
        self._wait(lambda: not self.run("squeue", "-h", check=False).strip())
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            path = self.folder / name
            if path.exists() and path.read_text().strip():
                os.kill(int(path.read_text()), signal.SIGTERM)

    def run(self, *command: str, check: bool = True) -> str:
        answer = subprocess.run(
            [_program(command[0]) or command[0], *command[1:]],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=30,
        )
        assert not check or answer.returncode == 0, f"{' '.join(command)}: {answer.stderr}"
        return answer.stdout

    def jobs(self) -> dict[str, str]:
        """States of the jobs in the queue; those of an array are 12_1, 12_2, ..."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i %T", check=False).splitlines()
        return dict(line.split() for line in lines)

    def fact(self, job: str, name: str) -> str:
        """A fact of a job, as scontrol shows it."""
        found = re.search(rf"\b{name}=(\S*)", self.run("scontrol", "-o", "show", "job", job))
        return found[1] if found else ""

    def _wait(self, condition, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise RuntimeError("SLURM did not get ready: " + (self.folder / "slurmctld.log").read_text()[-2000:])
            time.sleep(0.1)


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
