"""The pack of a worker: one process on a GPU, several on a CPU, that train for all runs of some configurations at
once.
"""

import os
import uuid
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from spectangle.processes import free_memory_gb
from spectangle.runs.sweep_folder import list_runs
from spectangle.sweeps.children import begin, die_with_parent, leave_signals_to_parent, redirect, start_method
from spectangle.sweeps.plan import Plan
from spectangle.sweeps.trial import Place, packs_on_gpu

__all__ = ["Pack", "pack_size", "remove_empty_logs", "stacks"]

MEMORY = 0.8  # of what is free, for the runs of a pack


class Pack:
    """Places for runs, and the processes that train for those who take one.

    Arguments:
        plan: The sweep.
        environment: Environment variables of the processes (threads, GPU).
    """

    def __init__(self, plan: Plan, environment: dict[str, str]):
        self.name = f"pack-{uuid.uuid4().hex[:6]}"
        self.method = start_method(plan.options.start_method)
        self.context: Any = get_context(self.method)
        self.environment, self.plan = environment, plan
        self.log = plan.folder / "workers" / f"{self.name}.log"
        self.pipes: list[Connection] = []
        self.processes: list[Any] = []

    def place(self) -> Place:
        """A place for one more run."""
        here, there = self.context.Pipe()
        self.pipes.append(here)
        return Place(there, self.name, list(self.pipes))

    def start(self) -> None:
        """Start the processes, once every run has its place."""
        threads = int(self.environment["OMP_NUM_THREADS"])
        count = 1 if packs_on_gpu(self.plan, self.environment) else stacks(len(self.pipes), threads)
        for i in range(count):
            own = self.pipes[i::count]
            others = [pipe for pipe in self.pipes if pipe not in own]
            share = len(range(i, threads, count))
            arguments = (own, others, os.getpid(), self.log, self.environment, share, self.plan.accelerator)
            process = self.context.Process(target=_serve, args=arguments, name=self.name, daemon=False)
            begin(process, self.method)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.close()

    def end(self) -> None:
        """End the processes that were started; runs that are left see that they have."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.kill()
            process.join()
        remove_empty_logs(self.plan.folder, self.name)


def remove_empty_logs(folder: Path, name: str = "pack-*") -> None:
    """Remove the logs of packs that had nothing to say from a sweep folder; a worker that was killed leaves its own."""
    for log in (folder / "workers").glob(f"{name}.log"):
        if not log.stat().st_size:
            log.unlink(missing_ok=True)


def pack_size(plan: Plan, workers: int) -> int:
    """Runs of a worker's next pack: ``sweep.pack``, or with ``auto`` as many as this worker's share of the free memory
    has room for, by what a finished run of the sweep has held; one until a run has finished.
    """
    if isinstance(plan.options.pack, int):
        return plan.options.pack
    peaks = (run.metrics.get("memory/peak_gb") for run in list_runs(plan.folder) if run.finished)
    peak = next((peak for peak in peaks if peak), None)
    return 1 if peak is None else max(1, int(MEMORY * free_memory_gb() / workers / peak))


def stacks(runs: int, threads: int) -> int:
    """Processes that train a pack on a CPU, each with its share of the runs and of the threads: one for each thread, of
    at least two runs. Small products on threads of one process wait for each other; processes do not.
    """
    return max(1, min(threads, runs // 2))


def _serve(
    pipes: list[Connection],
    others: list[Connection],
    parent: int,
    log: Path,
    environment: dict[str, str],
    threads: int,
    accelerator: str,
) -> None:
    leave_signals_to_parent()
    die_with_parent(parent)
    redirect(log)
    os.environ.update(environment)
    for pipe in others:  # else their runs would not see that their process has ended
        pipe.close()
    from spectangle.packs.pack_server import PackServer

    PackServer(pipes, threads, accelerator).serve()
