"""One attempt at a configuration, in a process of its own or, in a pack, one for each seed: whatever happens to it is
an outcome, not an accident.

The process is forked from a worker that has imported everything already, so that it starts in milliseconds. It talks
to its worker through a pipe: ``("report", step, value)`` at each epoch, answered by whether to stop, and one last
``(state, reason, traceback)``. It dies with its worker.
"""

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hydra.core.utils import run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from spectangle.errors import SpectangleError
from spectangle.runs.sweep_folder import ConfigurationFolder
from spectangle.runs.sweep_link import Pruned, link
from spectangle.signals import Stopped, stopping_on
from spectangle.sweeps.children import Parcel, begin, die_with_parent, leave_signals_to_parent, redirect, start_method
from spectangle.sweeps.claims import Claim, Outcome
from spectangle.sweeps.plan import Plan

__all__ = ["App", "Attempt", "Place", "packs_on_gpu"]


@dataclass
class App:
    """What Hydra gave the sweeper, enough to run a configuration: its context, the function of the command, the
    config.
    """

    context: HydraContext
    task_function: TaskFunction
    config: DictConfig

    def composed(self, overrides: list[str]) -> DictConfig:
        """The config of a configuration."""
        return self.context.config_loader.load_sweep_config(self.config, overrides)


@dataclass
class Place:
    """A run's place in a pack: its pipe to the process of the pack, the name of the pack, and the other ends, which it
    inherits and closes.
    """

    pipe: Connection
    pack: str
    inherited: list[Connection]


class Attempt:
    """Run a claimed configuration and wait for its outcome: its seeds in one new process, one after the other, or
    packed, each in a process of its own.

    Arguments:
        app: See :class:`App`.
        claim: The configuration.
        folder: Its folder.
        plan: The plan of the sweep.
        environment: Environment variables of the processes (threads, GPU).
        place: What gives each run its place in a pack, or None.
    """

    def __init__(
        self,
        app: App,
        claim: Claim,
        folder: Path,
        plan: Plan,
        environment: dict[str, str],
        place: Callable[[], Place] | None = None,
    ):
        self.claim, self.started = claim, time.monotonic()
        seeds, self.processes = plan.options.trial_seeds, []
        left = []
        if place is not None and seeds is not None:
            runs = zip(seeds, ConfigurationFolder(folder).runs(seeds), strict=True)
            left = [seed for seed, run in runs if not run.finished]
        try:
            for seed in left or [None]:
                log_folder, own = (folder, seeds) if seed is None else (folder / f"seed={seed}", [seed])
                reports = plan.prunes and (seeds is None or seed in (None, seeds[0]))  # the first seed speaks for all
                there = place() if place is not None else None
                one = RunProcess(app, claim, log_folder, folder, plan, environment, own, reports, there)
                self.processes.append(one)
        except BaseException:
            self.end(Outcome("interrupted"))
            raise

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def handles(self) -> list[Any]:
        """What to wait for."""
        return [handle for process in self.processes for handle in process.handles]

    def poll(self, prune: Callable[[int, float], bool]) -> Outcome | None:
        """Answer reports; return the outcome once the processes have ended."""
        outcomes = [process.poll(prune) for process in self.processes]
        if pruned := next((one for one in outcomes if one is not None and one.state == "pruned"), None):
            return self.end(pruned)
        if any(outcome is None for outcome in outcomes):
            return None
        states = {outcome.state: outcome for outcome in reversed(outcomes) if outcome is not None}
        return next(states[state] for state in ("failed", "interrupted", "complete") if state in states)

    def end(self, outcome: Outcome) -> Outcome:
        """End what still runs at once; the last checkpoints stay."""
        for process in self.processes:
            process.kill()
        return outcome


class RunProcess:
    """A new process that runs a configuration with some of its seeds.

    Arguments:
        app, claim, plan, environment: Those of the attempt.
        log_folder: Folder of its ``output.log``.
        folder: Folder of the configuration.
        seeds: Its seeds, or None.
        reports: Whether it reports to the pruner.
        place: Its place in a pack, or None.
    """

    def __init__(
        self,
        app: App,
        claim: Claim,
        log_folder: Path,
        folder: Path,
        plan: Plan,
        environment: dict[str, str],
        seeds: Sequence[int] | None,
        reports: bool,
        place: Place | None,
    ):
        self.log_folder, self.folder = log_folder, folder
        log_folder.mkdir(parents=True, exist_ok=True)
        method = start_method(plan.options.start_method)
        context: Any = get_context(method)
        self.pipe, there = context.Pipe()
        gpu_packs = packs_on_gpu(plan, environment)
        number = claim.trial.number
        arguments = (app, claim.overrides, log_folder, folder, number, seeds, reports, environment, gpu_packs)
        self.parcel: Parcel | None = None
        if method == "spawn":
            self.parcel = Parcel(*arguments)
            arguments = (self.parcel,)
            if place is not None:
                place.inherited = []
        self.process = context.Process(target=_child, args=(there, os.getpid(), place, *arguments), daemon=False)
        try:
            begin(self.process, method)
        except OSError:
            if self.parcel is not None:
                self.parcel.discard()
            raise
        there.close()
        if place is not None:
            place.pipe.close()
        self._last: tuple | None = None
        self._ended: Outcome | None = None

    @property
    def handles(self) -> list[Any]:
        return [] if self._ended else [self.pipe, self.process.sentinel]

    def poll(self, prune: Callable[[int, float], bool]) -> Outcome | None:
        """Answer reports; return the outcome once the process has ended."""
        if self._ended is not None:
            return self._ended
        alive = self.process.is_alive()  # asked first: its last word is there by then
        while (message := self._heard()) is not None:
            if message[0] == "report":
                self._answer(prune(*message[1:]))
            else:
                self._last = message
        if alive:
            return None
        self._ended = self._outcome()
        return self._ended

    def _heard(self) -> tuple | None:
        """The next message of the process, if there is one."""
        try:
            return self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            self.process.join(1)
            return None

    def _answer(self, stop: bool) -> None:
        with suppress(OSError):  # it is gone, as the next look will show
            self.pipe.send(stop)

    def kill(self) -> None:
        self.process.kill()
        self._join()
        self.pipe.close()

    def _join(self) -> None:
        self.process.join()
        if self.parcel is not None:
            self.parcel.discard()

    def _outcome(self) -> Outcome:
        self._join()
        if self._last is None:
            code = self.process.exitcode or 0
            state = "interrupted" if code == -signal.SIGTERM else "failed"  # before it could answer
            return Outcome(state, reason=_ending(code), facts=self._log | self._tail())
        state, reason, text = self._last
        facts = self._log if state == "failed" else {}
        return Outcome(state, reason=reason, facts=facts | ({"traceback": text} if text else {}))

    @property
    def _log(self) -> dict[str, str]:
        return {"log": str((self.log_folder / "output.log").relative_to(self.folder))}

    def _tail(self) -> dict[str, str]:
        try:
            text = (self.log_folder / "output.log").read_text(errors="replace")[-2000:].strip()
        except OSError:
            text = ""
        return {"traceback": text} if text else {}


def packs_on_gpu(plan: Plan, environment: Mapping[str, str]) -> bool:
    """Whether a sweep trains in packs that take a GPU."""
    return plan.options.pack != 1 and plan.accelerator != "cpu" and "CUDA_VISIBLE_DEVICES" in environment


def _child(pipe: Connection, parent: int, place: Place | None, *arguments: Any) -> None:
    leave_signals_to_parent()
    die_with_parent(parent)
    if len(arguments) == 1:
        arguments = arguments[0].open()
    app, overrides, log_folder, folder, number, seeds, reports, environment, link.gpu_packs = arguments
    os.environ.update(environment)
    redirect(log_folder / "output.log")
    if place is not None:
        for other in place.inherited:  # else nobody would see that the pack has ended
            other.close()
        link.pack, link.pack_name = place.pipe, place.pack
    try:
        link.pipe, link.claimed = pipe if reports else None, True
        for seed, run in zip(seeds or [None], ConfigurationFolder(folder).runs(seeds), strict=True):
            if not run.finished:
                with stopping_on(
                    signal.SIGTERM
                ):  # scancel reaches every process too, but it may be meant for this run alone
                    _run(app, overrides + ([] if seed is None else [f"seed={seed}"]), run.path, number)
                gc.collect()  # a trainer is a cycle: without this, the stars of one seed stay while the next one trains
            link.pipe = None  # the first seed speaks for all
        pipe.send(("complete", "", ""))
    except Pruned as pruned:
        pipe.send(("pruned", str(pruned), ""))
    except Stopped as stopped:
        pipe.send(("interrupted", f"the run was {stopped}", ""))
    except Exception as error:
        text = "" if isinstance(error, SpectangleError) else traceback.format_exc()
        pipe.send(("failed", f"{type(error).__name__}: {error}" if text else str(error), text[-4000:]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _run(app: App, overrides: list[str], folder: Path, number: int) -> None:
    """What Hydra's own launcher does for a job, in a folder that we name."""
    os.environ |= {
        "WANDB_RUN_ID": "-".join(folder.parts[-3:] if "seed=" in folder.name else folder.parts[-2:]),
        "WANDB_RESUME": "allow",
    }
    config = app.composed(overrides)
    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = folder.name, number
        config.hydra.sweep.dir, config.hydra.sweep.subdir = str(folder.parent), folder.name
    result = run_job(
        hydra_context=app.context,
        task_function=app.task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    _ = result.return_value  # raises what the run raised


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"it was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
