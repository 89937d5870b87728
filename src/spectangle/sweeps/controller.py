"""Run a planned sweep: on this machine, as batches through a launcher, or as SLURM workers; then say how it went."""

import os
import shlex
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from optuna.trial import TrialState

from spectangle.configs.targets import check_targets
from spectangle.console import console, print_table
from spectangle.errors import SpectangleError
from spectangle.runs.sweep_folder import sweep_record
from spectangle.signals import ending_signals
from spectangle.survey.format import check_there
from spectangle.sweeps.adoption import refuse_change
from spectangle.sweeps.again import renew_configurations
from spectangle.sweeps.children import Parcel, begin, hear_signals, start_method
from spectangle.sweeps.leaderboard import Leaderboard
from spectangle.sweeps.leaderboard_page import write_report
from spectangle.sweeps.live_page import LivePage
from spectangle.sweeps.pack import remove_empty_logs
from spectangle.sweeps.plan import Plan
from spectangle.sweeps.status import StatusLine, describe_plan
from spectangle.sweeps.study import Study
from spectangle.sweeps.submission import check_submission
from spectangle.sweeps.trial import App
from spectangle.sweeps.worker import NoRoom, Worker, preload, requeue

__all__ = ["Crew", "run_sweep"]

STRIKES = 5  # workers that die young, one after the other, before the sweep gives up
YOUNG_S = 5
COULD_NOT_START = 3  # exit code of a worker that found no room for the processes of a run


def run_sweep(plan: Plan, app: App) -> None:
    """Run what is left of a sweep, write its report, and raise if a configuration failed for good.

    Raises:
        SpectangleError: Something failed in the end, or the folder holds another sweep.
        KeyboardInterrupt: The user stopped it; the same command goes on.
    """
    check_targets(app.config)  # each run would refuse it, one after the other, as a survey that is not there
    if isinstance(path := OmegaConf.select(app.config, "data.path"), str):
        check_there(Path(path).absolute())
    if plan.options.dry_run:
        refuse_change(plan)
        return console.print(describe_plan(plan), soft_wrap=True)
    target = app.config.hydra.launcher._target_
    if plan.options.pack != 1 and not target.endswith(("SlurmWorkers", "BasicLauncher")):
        raise SpectangleError(
            f"sweep.pack={plan.options.pack} needs workers, which take several runs each; this launcher starts each "
            "run by itself. Leave hydra/launcher out, or take hydra/launcher=slurm_workers."
        )
    plan.rehearse()
    if target.endswith("SlurmWorkers"):
        return submit(plan, app)
    study = Study(plan)
    renew_configurations(study)
    from spectangle.sweeps.wandb_summary import summarized

    with summarized(plan.folder, app.config):
        if target.endswith("BasicLauncher"):
            Crew(plan, app, study).run()
        else:
            from spectangle.sweeps.batches import run_batches

            if target.endswith("SlurmBatches"):
                check_submission(plan.folder, app.config.hydra.launcher, plan.n_runs)
            run_batches(plan, app, study)
    conclude(plan, study)


def submit(plan: Plan, app: App) -> None:
    """Submit the workers of a sweep; a sweep that SLURM refuses has fixed nothing."""
    from spectangle.sweeps.slurm import submit_workers

    check_submission(plan.folder, app.config.hydra.launcher, plan.n_runs)
    if sweep_record(plan.folder):
        renew_configurations(Study(plan))
    submit_workers(plan, app.config.hydra.launcher)
    Study(plan)


class Crew:
    """The workers of this machine: start them, replace those that die, pass signals on.

    Arguments:
        plan, app, study: The sweep.
    """

    def __init__(self, plan: Plan, app: App, study: Study):
        self.plan, self.app, self.study = plan, app, study
        self.context: Any = get_context(start_method(plan.options.start_method))
        self.size = plan.options.workers
        self.workers: dict[int, tuple[Any, float]] = {}
        self.payloads: dict[int, Any] = {}
        self.stopped_by: int | None = None
        self.strikes, self.ended = 0, 0

    def run(self) -> None:
        """Work until the study is done or a signal comes."""
        if self.study.done:
            return
        if self.context.get_start_method() == "fork":
            preload(self.plan.options.preload)  # workers share the memory of what is imported here
        numbers = ending_signals(signal.SIGUSR1)
        before = [signal.signal(number, self._stop) for number in numbers]
        hear_signals()  # SLURM's, which the batch script holds back until here
        try:
            self._tend()
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
        self._leave()

    def _tend(self) -> None:
        for slot in range(self.size):
            self._start(slot)
        page = LivePage(self.plan.folder)
        with StatusLine(self.study) as status:
            while self.workers:
                status.update()
                page.update()
                time.sleep(0.2)
                for slot, (process, started) in list(self.workers.items()):
                    if not process.is_alive():
                        self._replace(slot, process, started)

    def _start(self, slot: int) -> None:
        payload = self._payload()
        process = self.context.Process(target=_work, args=(payload, slot, self.size), name=f"worker {slot}")
        try:
            begin(process, self.context.get_start_method())
        except OSError as error:
            raise SpectangleError(
                f"A worker could not be started ({error.strerror}); give fewer sweep.workers."
            ) from error
        self.workers[slot] = (process, time.monotonic())
        self.payloads[slot] = payload
        if self.stopped_by is not None:
            process.terminate()

    def _payload(self) -> Any:
        if self.context.get_start_method() == "fork":
            return self.plan, self.app
        return Parcel(self.plan, self.app)

    def _replace(self, slot: int, process: Any, started: float) -> None:
        process.join()
        del self.workers[slot]
        if isinstance(payload := self.payloads.pop(slot), Parcel):
            payload.discard()
        if process.exitcode == 0 or self.stopped_by is not None or self.study.done:
            return
        ended = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self.study.trials)
        young = time.monotonic() - started < YOUNG_S or (process.exitcode == COULD_NOT_START and ended == self.ended)
        self.strikes, self.ended = self.strikes + 1 if young else 0, ended
        if self.strikes < STRIKES:
            self._start(slot)
        elif self.strikes == STRIKES:
            console.print(f"{self.strikes} workers died one after the other as soon as they started.")

    def _stop(self, number: int, frame: object) -> None:
        self.stopped_by = number
        for process, _ in self.workers.values():
            if process.is_alive():
                os.kill(process.pid, number)

    def _leave(self) -> None:
        """After a signal: requeue the SLURM job, or exit as the signal asks."""
        if self.stopped_by is None:
            return
        if self.stopped_by == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ:
            raise SystemExit(requeue())
        LivePage(self.plan.folder).write()
        console.print(f"stopped; the same command goes on in {self.plan.folder}", markup=False)
        if self.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.stopped_by)


def conclude(plan: Plan, study: Study) -> None:
    """Write results.csv and report.html, print the best configurations, and raise if some failed for good."""
    remove_empty_logs(plan.folder)
    board = Leaderboard(plan.folder)
    print_table(board.text(limit=10))
    command = shlex.join(["spectangle", "report", f"sweep={plan.folder}"])
    try:
        write_report(board)
        console.print(f"The report is {plan.folder / 'report.html'}; again, at any time: {command}", markup=False)
    except SpectangleError as error:
        console.print(f"not written: {str(error).rstrip('.')}; once that is mended: {command}", markup=False)
    if failed := study.failed:
        attempts = study.configurations
        first = attempts[failed[0]][-1].user_attrs.get("reason", "no reason is known").rstrip(".")
        log = plan.folder / failed[0] / attempts[failed[0]][-1].user_attrs.get("log", "output.log")
        stopped = (
            " The sweep stopped: more failed than sweep.max_failure_rate allows." if study.too_many_failures else ""
        )
        raise SpectangleError(
            f"{len(failed)} of {study.n_trials} configurations failed; {failed[0]}: {first}. See {log}.{stopped} "
            "The same command with a larger sweep.retries tries them again."
        )
    if not study.done:
        raise SpectangleError(
            f"The sweep in {plan.folder} is not finished: its workers ended too early. The same command goes on."
        )


def _work(payload: Any, slot: int, size: int) -> None:
    plan, app = payload.open() if isinstance(payload, Parcel) else payload
    try:
        Worker(plan, app, slot, size).work()
    except NoRoom as error:
        console.print(f"error: {error}", markup=False)
        raise SystemExit(COULD_NOT_START) from None
    except SpectangleError as error:
        console.print(f"error: {error}", markup=False)
        raise SystemExit(1) from None
