"""A worker: take a configuration, run it, tell the study, until nothing is left. Any number may work on one study."""

import functools
import gc
import importlib
import logging
import os
import signal
import statistics
import subprocess
import time

from spectangle.runs.sweep_folder import ConfigurationFolder
from spectangle.signals import ending_signals
from spectangle.sweeps.again import keep_files
from spectangle.sweeps.claims import Claim, Outcome, check
from spectangle.sweeps.liveness import WorkerRecord
from spectangle.sweeps.plan import Plan
from spectangle.sweeps.study import Study
from spectangle.sweeps.trial import App, Attempt
from spectangle.threads import cores

__all__ = ["Worker", "available_gpus", "preload"]

log = logging.getLogger(__name__)
WAIT_S = 0.5
TAKEN_FOR_DEAD = Outcome(
    "interrupted", reason="this worker was taken for dead; another one runs the configuration", facts={"seconds": 0.0}
)


class Worker:
    """Work on a plan in this process, each run in a child of it.

    SIGTERM and SIGINT (the user, ``scancel``, a pre-emption) and SIGUSR1 (SLURM's time limit is near) end the run and
    give its configuration back: whoever takes it next goes on from its last checkpoint.

    Arguments:
        plan, app: The sweep, and what runs a configuration.
        slot: Number of the worker on its machine; chooses its GPU.
        workers: How many share the machine.
    """

    def __init__(self, plan: Plan, app: App, slot: int = 0, workers: int = 1):
        self.plan, self.app, self.slot, self.workers = plan, app, slot, workers
        self.stopping: str | None = None

    def work(self) -> None:
        """Run configurations until the sweep is done or this worker is told to stop."""
        for number in ending_signals(signal.SIGUSR1):
            signal.signal(number, self._stop)
        parent = os.getppid()
        preload(self.plan.options.preload)
        gc.freeze()  # what is loaded stays: collections in the runs need not look at it, which copies its memory
        self.record = WorkerRecord(self.plan.folder, self.plan.options.heartbeat_s)
        try:
            study = Study(self.plan)
            while not self.stopping and not study.done:
                if os.getppid() != parent:
                    self.stopping = "the sweep was killed"
                elif claim := study.claim(self.record.name):
                    self._work_on(study, claim, parent)
                elif not study.done and self.record.beat():
                    time.sleep(WAIT_S)
                else:
                    self._return()
        finally:
            self.record.remove()

    def _work_on(self, study: Study, claim: Claim, parent: int) -> None:
        outcome = self._run(study, claim, self.record, parent)
        if outcome is TAKEN_FOR_DEAD:
            self._return()
        else:
            study.tell(claim, outcome)

    def _return(self) -> None:
        """Come back under a new name after this worker was taken for dead."""
        self.record.remove()
        self.record = WorkerRecord(self.plan.folder, self.plan.options.heartbeat_s)

    def _run(self, study: Study, claim: Claim, record: WorkerRecord, parent: int) -> Outcome:
        folder = ConfigurationFolder(self.plan.folder / claim.name)
        names, seeds = self.plan.objectives, self.plan.options.trial_seeds
        if (values := folder.objectives(names, seeds)) is not None:
            if (outcome := check(values, names)).state == "complete":
                return outcome
            folder.reject(seeds)
        elif folder.record.get("config", self.plan.digest) != self.plan.digest:
            keep_files(folder.path)  # begun with another config (sweep.allow_change): not to be mixed
        attempts = len(study.configurations.get(claim.name, []))
        facts = {"name": claim.name, "params": claim.params, "overrides": claim.overrides, "trial": claim.trial.number}
        facts["config"] = self.plan.digest
        folder.write_record(
            **facts, state="running", reason="", worker=record.name, attempts=attempts, started=time.time()
        )
        outcome = self._supervise(
            Attempt(self.app, claim, folder.path, self.plan, self.environment()), study, claim, record, parent
        )
        outcome.facts["seconds"] = round(outcome.facts["seconds"], 3)
        if outcome.state != "complete" or outcome is TAKEN_FOR_DEAD:
            return outcome
        final = check(folder.objectives(names, seeds), names)
        rows = folder.values(names, seeds) or []
        spread = {"spread": [statistics.stdev(column) for column in zip(*rows, strict=True)]} if len(rows) > 1 else {}
        return Outcome(final.state, final.values, final.reason, outcome.facts | spread)

    def _supervise(self, attempt: Attempt, study: Study, claim: Claim, record: WorkerRecord, parent: int) -> Outcome:
        """Wait for the run, with an eye on signals, the clock, the sweep that started us and those who may think us
        dead.
        """
        limit, asked = self.plan.options.trial_timeout_min, time.monotonic()
        record.set_child(attempt.process.pid)

        def prune(step: int, value: float) -> bool:
            claim.trial.report(value, step)
            return claim.trial.should_prune()

        outcome = None
        while outcome is None:
            outcome = attempt.poll(WAIT_S, prune)
            lost, due = not record.beat(), time.monotonic() - asked > record.heartbeat_s
            if lost or (due and study.lost(claim)):
                attempt.kill("interrupted", TAKEN_FOR_DEAD.reason)
                return TAKEN_FOR_DEAD
            asked = time.monotonic() if due else asked
            if outcome is None and limit and attempt.seconds > 60 * limit:
                outcome = attempt.kill("failed", f"it took longer than sweep.trial_timeout_min={limit}")
            elif outcome is None and os.getppid() != parent:
                self.stopping = "the sweep was killed"
            if outcome is None and self.stopping:
                outcome = attempt.kill("interrupted", self.stopping)
        outcome.facts["seconds"] = attempt.seconds
        record.set_child(None)
        return outcome

    def environment(self) -> dict[str, str]:
        """Threads, GPU and names for the process of a run."""
        threads = self.plan.options.threads or max(1, cores() // self.workers)
        found = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)) | {
            "WANDB_RUN_GROUP": self.plan.folder.name
        }
        found["SLURM_JOB_NAME"] = "bash"  # Lightning then leaves requeueing to the worker
        gpus = available_gpus()
        return found | ({"CUDA_VISIBLE_DEVICES": gpus[self.slot % len(gpus)]} if gpus else {})

    def _stop(self, number: int, frame: object) -> None:
        self.stopping = "time limit" if number == signal.SIGUSR1 else "the worker was told to stop"


def preload(modules) -> None:
    """Import what every run needs, once."""
    for module in modules:
        importlib.import_module(module)


@functools.cache
def available_gpus() -> list[str]:
    """GPUs that this process may use, found without touching them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name and name != "-1"]
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.split() if answer.returncode == 0 else []


def requeue() -> None:
    """Put this SLURM job back into the queue: it will go on where it stopped."""
    job = os.environ["SLURM_JOB_ID"]
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    log.info("the time limit is near: job %s goes back into the queue", job)
    subprocess.run(["scontrol", "requeue", job], check=False)
