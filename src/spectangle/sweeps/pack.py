"""The pack of a worker: a process that trains for all runs of some configurations at once."""

import os
import uuid
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from spectangle.processes import free_memory_gb
from spectangle.runs.sweep_folder import list_runs
from spectangle.sweeps.plan import Plan
from spectangle.sweeps.trial import Place, die_with_parent, redirect, start_method

__all__ = ["Pack", "pack_size"]

MEMORY = 0.8  # of what is free, for the runs of a pack


class Pack:
    """Places for runs, and the process that trains for those who take one.

    Arguments:
        plan: The sweep.
        environment: Environment variables of the process (threads, GPU).
    """

    def __init__(self, plan: Plan, environment: dict[str, str]):
        self.name = f"pack-{uuid.uuid4().hex[:6]}"
        self.context: Any = get_context(start_method(plan.options.start_method))
        self.environment, self.plan = environment, plan
        self.log = plan.folder / "workers" / f"{self.name}.log"
        self.pipes: list[Connection] = []
        self.process: Any = None

    def place(self) -> Place:
        """A place for one more run."""
        here, there = self.context.Pipe()
        self.pipes.append(here)
        return Place(there, self.name, list(self.pipes))

    def start(self) -> None:
        """Start the process, once every run has its place."""
        arguments = (self.pipes, os.getpid(), self.log, self.environment, self.plan.accelerator)
        self.process = self.context.Process(target=_serve, args=arguments, name=self.name, daemon=False)
        self.process.start()
        for pipe in self.pipes:
            pipe.close()

    def end(self) -> None:
        """End the process, if it was started; runs that are left see that it has."""
        for pipe in self.pipes:
            pipe.close()
        if self.process is not None:
            self.process.kill()
            self.process.join()
        if self.log.is_file() and not self.log.stat().st_size:
            self.log.unlink()


def pack_size(plan: Plan, workers: int) -> int:
    """Runs of a worker's next pack: ``sweep.pack``, or with ``auto`` as many as this worker's share of the free memory
    has room for, by what a finished run of the sweep has held; one until a run has finished.
    """
    if isinstance(plan.options.pack, int):
        return plan.options.pack
    peaks = (run.metrics.get("memory/peak_gb") for run in list_runs(plan.folder) if run.finished)
    peak = next((peak for peak in peaks if peak), None)
    return 1 if peak is None else max(1, int(MEMORY * free_memory_gb() / workers / peak))


def _serve(pipes: list[Connection], parent: int, log: Path, environment: dict[str, str], accelerator: str) -> None:
    die_with_parent(parent)
    redirect(log)
    os.environ.update(environment)
    from spectangle.packs.pack_server import PackServer

    PackServer(pipes, int(environment["OMP_NUM_THREADS"]), accelerator).serve()
