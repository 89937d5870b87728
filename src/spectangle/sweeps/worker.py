"""A worker: take a configuration, run it, tell the study, until nothing is left. Any number may work on one study."""

import functools
import gc
import importlib
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from multiprocessing.connection import wait
from typing import Any

from spectangle.console import console
from spectangle.errors import SpectangleError
from spectangle.packs.pack_key import pack_key
from spectangle.packs.shared_stars import shared_stars
from spectangle.runs.sweep_folder import ConfigurationFolder
from spectangle.signals import Stopped, ending_signals
from spectangle.sweeps.again import keep_files
from spectangle.sweeps.children import hear_signals, start_method
from spectangle.sweeps.claims import Claim, Outcome, check
from spectangle.sweeps.liveness import WorkerRecord
from spectangle.sweeps.pack import Pack, pack_size
from spectangle.sweeps.plan import Plan
from spectangle.sweeps.study import Study
from spectangle.sweeps.trial import App, Attempt
from spectangle.threads import cores

__all__ = ["NoRoom", "Worker", "available_gpus", "preload"]

WAIT_S = 0.5
READING_MIN = 10  # a worker that reads stars for longer may be taken for dead


class NoRoom(SpectangleError):
    """The machine has no room for the processes of a run."""


class Worker:
    """Work on a plan in this process, each run in a child of it; with ``sweep.pack``, several at a time, whose models
    one more child trains together.

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
        self._reading = False

    def work(self) -> None:
        """Run configurations until the sweep is done or this worker is told to stop."""
        for number in ending_signals(signal.SIGUSR1):
            signal.signal(number, self._stop)
        hear_signals()
        self.parent = os.getppid()
        preload(self.plan.options.preload)
        gc.freeze()  # what is loaded stays: collections in the runs need not look at it, which copies its memory
        self.record = WorkerRecord(self.plan.folder, self.plan.options.heartbeat_s)
        try:
            study = Study(self.plan)
            while not self.stopping and not study.done:
                room = pack_size(self.plan, self.workers)  # asked once: the free memory is another one a moment later
                if os.getppid() != self.parent:
                    self.stopping = "the sweep was killed"
                elif claims := self._claim(study, self.plan.per_pack(room)):
                    self._work_on(study, claims, room)
                elif not study.done and self.record.beat():
                    time.sleep(WAIT_S)
                else:
                    self._return()
        finally:
            self.record.remove()

    def _claim(self, study: Study, room: int) -> list[Claim]:
        """As many configurations as a pack has room for: one without packs. Of those that are queued, only such as may
        train together; what a sampler proposes is taken as it comes, and the pack trains apart what does not fit.
        """
        claims: list[Claim] = []

        def fits(params: Mapping[str, Any]) -> bool:
            return pack_key(params) == pack_key(claims[0].params)

        while len(claims) < room:
            if (claim := study.claim(self.record.name, fits if claims else None)) is None:
                break
            claims.append(claim)
        return claims

    def _return(self) -> None:
        """Come back under a new name after this worker was taken for dead."""
        self.record.remove()
        self.record = WorkerRecord(self.plan.folder, self.plan.options.heartbeat_s)

    def _work_on(self, study: Study, claims: list[Claim], room: int) -> None:
        waiting = []
        for claim in claims:
            if (outcome := self._prepare(study, claim)) is not None:
                study.tell(claim, outcome)
            else:
                waiting.append(claim)
        runs = len(waiting) * len(self.plan.options.trial_seeds or [None])
        pack = Pack(self.plan, self.environment()) if 1 < runs <= room else None  # auto: one by one until one has ended
        attempts: list[Attempt] = []
        try:
            with ExitStack() as held:
                if pack and start_method(self.plan.options.start_method) == "fork":
                    self._read_stars(waiting[0], held)
                if self.stopping:
                    for claim in waiting:
                        study.tell(claim, Outcome("interrupted", reason=self.stopping))
                else:
                    self._start(study, waiting, attempts, pack)
            living = self._supervise(study, attempts)
        finally:
            for attempt in attempts:
                attempt.end(Outcome("interrupted"))
            if pack is not None:
                pack.end()
            self.record.set_children()
        if not living:
            self._return()

    def _read_stars(self, claim: Claim, held: ExitStack) -> None:
        """Read what the runs of a pack share. It may take a minute, in which this worker lives, and can be told to
        stop.
        """
        limit = 60.0 * (self.plan.options.trial_timeout_min or READING_MIN)
        self._reading = True
        try:
            with self.record.beating(limit):
                held.enter_context(shared_stars(lambda: self.app.composed(claim.overrides)))
        except Stopped:
            pass  # _stop has noted it
        finally:
            self._reading = False

    def _prepare(self, study: Study, claim: Claim) -> Outcome | None:
        """Say that a configuration runs; return its outcome if it is finished already."""
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
        facts |= {"config": self.plan.digest, "worker": self.record.name, "attempts": attempts}
        folder.write_record(**facts, state="running", reason="", started=time.time())
        return None

    def _start(self, study: Study, claims: list[Claim], attempts: list[Attempt], pack: Pack | None) -> None:
        """Start the runs of some configurations, and the pack that trains for them; add the attempts to a list as they
        begin.

        Raises:
            NoRoom: The machine has none for them; they are given back.
        """
        if why := self._begin(claims, attempts, pack):
            for attempt in attempts:
                attempt.end(Outcome("interrupted"))
            attempts.clear()
            if pack is not None:
                pack.end()
            for claim in claims:
                study.tell(claim, Outcome("interrupted", reason=f"it could not be started ({why})"))
            raise NoRoom(
                f"The processes of {len(claims)} configurations could not be started ({why}); give fewer "
                "sweep.workers, a smaller sweep.pack, or the machine more room (ulimit -n, ulimit -u, the disk)."
            )

    def _begin(self, claims: list[Claim], attempts: list[Attempt], pack: Pack | None) -> str:
        """Start what can be started; why the rest cannot, if there is any."""
        environment = self.environment(1 if pack else None)
        try:
            for claim in claims:
                folder, place = self.plan.folder / claim.name, pack.place if pack else None
                attempts.append(Attempt(self.app, claim, folder, self.plan, environment, place))
            self.record.set_children(*(process.process.pid for attempt in attempts for process in attempt.processes))
            if pack is not None:
                pack.start()
        except (OSError, SpectangleError) as error:  # too many files or processes, no memory, a full disk
            return str(getattr(error, "strerror", None) or error).rstrip(".") or type(error).__name__
        return ""

    def _supervise(self, study: Study, attempts: list[Attempt]) -> bool:
        """Wait for the runs, with an eye on signals, the clock, the sweep that started us and those who may think us
        dead; tell the study how each ended. Return whether nobody has taken this worker for dead.
        """
        asked, left = time.monotonic(), list(attempts)
        while left:
            wait([handle for attempt in left for handle in attempt.handles], WAIT_S)
            lost, due = not self.record.beat(), time.monotonic() - asked > self.record.heartbeat_s
            if lost or (due and any(study.lost(attempt.claim) for attempt in left)):
                return False
            asked = time.monotonic() if due else asked
            if os.getppid() != self.parent:
                self.stopping = "the sweep was killed"
            for attempt in list(left):
                if (outcome := self._look_at(attempt)) is not None:
                    left.remove(attempt)
                    study.tell(attempt.claim, self._final(attempt, outcome))
        return True

    def _look_at(self, attempt: Attempt) -> Outcome | None:
        """The outcome of an attempt, if it has ended or must end now."""

        def prune(step: int, value: float) -> bool:
            attempt.claim.trial.report(value, step)
            return attempt.claim.trial.should_prune()

        limit = self.plan.options.trial_timeout_min
        if (outcome := attempt.poll(prune)) is not None:
            return outcome
        if limit and attempt.seconds > 60 * limit:
            reason = f"it took longer than sweep.trial_timeout_min={limit}"
            return attempt.end(Outcome("failed", reason=reason))
        return attempt.end(Outcome("interrupted", reason=self.stopping)) if self.stopping else None

    def _final(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """What the study is told: the objectives of runs that have ended well, with their spread over seeds."""
        facts = outcome.facts | {"seconds": round(attempt.seconds, 3)}
        if outcome.state != "complete":
            return Outcome(outcome.state, reason=outcome.reason, facts=facts)
        names, seeds = self.plan.objectives, self.plan.options.trial_seeds
        folder = ConfigurationFolder(self.plan.folder / attempt.claim.name)
        final, rows = check(folder.objectives(names, seeds), names), folder.values(names, seeds) or []
        spread = {"spread": [statistics.stdev(column) for column in zip(*rows, strict=True)]} if len(rows) > 1 else {}
        return Outcome(final.state, final.values, final.reason, facts | spread)

    def environment(self, threads: int | None = None) -> dict[str, str]:
        """Threads, GPU and names for the process of a run."""
        threads = threads or self.plan.options.threads or max(1, cores() // self.workers)
        found = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)) | {
            "WANDB_RUN_GROUP": self.plan.folder.name
        }
        found["SLURM_JOB_NAME"] = "bash"  # Lightning then leaves requeueing to the worker
        gpus = available_gpus()
        return found | ({"CUDA_VISIBLE_DEVICES": gpus[self.slot % len(gpus)]} if gpus else {})

    def _stop(self, number: int, frame: object) -> None:
        self.stopping = "time limit" if number == signal.SIGUSR1 else "the worker was told to stop"
        if self._reading:
            self._reading = False  # once: Ctrl-C comes from the terminal and from the controller
            raise Stopped(number)


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


def requeue() -> int:
    """Put this SLURM job back into the queue, where it will go on from what it has saved; return its exit code."""
    job = os.environ["SLURM_JOB_ID"]
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    now = time.strftime("%Y-%m-%d %H:%M:%S")  # said before: SLURM ends the job at once
    console.print(f"{now} the time limit is near: job {job} goes back into the queue", markup=False)
    answer = subprocess.run(["scontrol", "requeue", job], check=False, capture_output=True, text=True)
    if answer.returncode:
        console.print(
            f"error: SLURM does not take job {job} back ({answer.stderr.strip()}); submit the sweep again, it goes on.",
            markup=False,
        )
    return answer.returncode
