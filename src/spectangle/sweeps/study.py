"""The study: who runs which configuration, and how it ended. Any number of workers share it.

Two short critical sections keep it right: *claim* (find dead workers, renew their trials, take the next one) and
*register* (no configuration is taken twice). All else is derived from the trials, so that a worker may die anywhere.
Each attempt is an Optuna trial; a configuration may have several.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from spectangle.errors import SpectangleError
from spectangle.runs.sweep_folder import ConfigurationFolder, write_sweep_record
from spectangle.sweeps.adoption import adopted, identified, open_study
from spectangle.sweeps.claims import STATES, Claim, Outcome, check
from spectangle.sweeps.jobs import ENDED, job_states
from spectangle.sweeps.liveness import living_workers
from spectangle.sweeps.locks import FolderLock, folder_lock
from spectangle.sweeps.plan import Plan
from spectangle.sweeps.space import identity, override
from spectangle.sweeps.storage import open_storage

__all__ = ["Study", "seconds_of"]

log = logging.getLogger(__name__)
OPEN = (TrialState.RUNNING, TrialState.WAITING)
UNDRAWN = "its worker died before it was drawn"


class Study:
    """The Optuna study of a plan, opened or created.

    Raises:
        SpectangleError: The folder holds a sweep of another space or config, and ``sweep.allow_change`` is not set.
    """

    def __init__(self, plan: Plan):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.plan, self.folder = plan, plan.folder
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpectangleError(
                f"{self.folder} could not be made ({error.strerror}); give a folder that you may write to: "
                "sweep.dir=DIR."
            ) from error
        with folder_lock(self.folder) as lock:
            self.storage = open_storage(plan.options.storage, self.folder)
            who = identified(plan, self.storage)
            self.study = adopted(plan, open_study(plan, self.storage, who), self.storage, who)
            write_sweep_record(self.folder, plan.record() | who)
            self._enqueue_grid(lock)

    def claim(self, worker: str, fits: Callable[[Mapping[str, Any]], bool] | None = None) -> Claim | None:
        """Take the next configuration, or None if there is none to take now (see :attr:`done`), or if the one that is
        queued first does not fit.
        """
        dead = self._dead()  # SLURM and the file system may answer slowly: not while others wait for the lock
        with folder_lock(self.folder) as lock:
            self._renew(dead, lock)
            if self.too_many_failures or not self._has_next():
                return None
            if fits is not None and (queued := self._queued()) is not None and not fits(queued):
                return None
            trial = self._ask()
            trial.set_user_attr("worker", worker)
            if "configuration" not in trial.user_attrs:
                trial.set_user_attr("proposal", self._next_proposal())
        try:
            return self._register(trial)
        except BaseException as error:
            self.study.tell(trial, state=TrialState.FAIL)
            if isinstance(error, optuna.TrialPruned):
                return self.claim(worker, fits)
            raise

    def tell(self, claim: Claim, outcome: Outcome) -> None:
        """Record how an attempt ended, in the study and in the folder of the configuration."""
        self._finish(claim.trial._trial_id, claim.name, outcome)

    def lost(self, claim: Claim) -> bool:
        """Whether somebody else has ended an attempt: its worker was taken for dead, and its configuration may be run
        by another.
        """
        return self.storage.get_trial(claim.trial._trial_id).state != TrialState.RUNNING

    @property
    def trials(self) -> list[FrozenTrial]:
        """Every attempt that counts, without proposals that turned out to be known and without what was set aside."""
        aside = set(self.study.user_attrs.get("set_aside", []))
        found = self.study.get_trials(deepcopy=False)
        return [trial for trial in found if "discarded" not in trial.user_attrs and trial.number not in aside]

    @property
    def configurations(self) -> dict[str, list[FrozenTrial]]:
        """Attempts by configuration, oldest first."""
        found: dict[str, list[FrozenTrial]] = {}
        for trial in self.trials:
            if name := trial.user_attrs.get("configuration"):
                found.setdefault(name, []).append(trial)
        return found

    @property
    def done(self) -> bool:
        """Nothing is running, waiting or left to propose."""
        trials = self.trials
        if self.too_many_failures:
            return not any(trial.state == TrialState.RUNNING for trial in trials)
        return (
            not any(trial.state in OPEN for trial in trials)
            and not self._retryable()
            and len(self.configurations) >= self.n_trials
        )

    @property
    def failed(self) -> list[str]:
        """Configurations that failed for good."""
        return [
            name
            for name, attempts in self.configurations.items()
            if _lost(attempts) and _failures(attempts) > self.plan.options.retries
        ]

    @property
    def too_many_failures(self) -> bool:
        return len(self.failed) > self.plan.options.max_failure_rate * self.n_trials

    @property
    def n_trials(self) -> int:
        """Configurations in total: fewer than planned if the space has no more."""
        return min(self.plan.n_trials, self.study.user_attrs.get("exhausted", self.plan.n_trials))

    def set_aside(self, names: Sequence[str], lock: FolderLock) -> None:
        """Forget the attempts at some configurations and queue these again, under a lock that the caller holds."""
        for name, attempts in self.configurations.items():
            if name in names and lock.held:
                numbers = [trial.number for trial in attempts]
                self.study.set_user_attr("set_aside", [*self.study.user_attrs.get("set_aside", []), *numbers])
                self._enqueue(attempts[-1].system_attrs.get("fixed_params", attempts[-1].params), name)

    def finished_values(self, name: str) -> list[float] | None:
        """Objectives of a configuration whose runs are all finished: their mean over seeds."""
        return ConfigurationFolder(self.folder / name).objectives(self.plan.objectives, self.plan.options.trial_seeds)

    def _has_next(self) -> bool:
        trials = self.trials
        if any(trial.state == TrialState.WAITING for trial in trials):
            return True
        sampling = sum(
            trial.state == TrialState.RUNNING and "configuration" not in trial.user_attrs for trial in trials
        )
        return len(self.configurations) + sampling < self.n_trials

    def _interrupted(self) -> list[FrozenTrial]:
        """What is queued of the configurations that were interrupted: they are taken before others, since with short
        time limits all would be begun before one is finished.
        """
        known = self.configurations

        def begun(trial: FrozenTrial) -> bool:
            attempts = known.get(trial.user_attrs.get("configuration", ""), [])
            ended = [attempt for attempt in attempts if attempt.state.is_finished()]
            return bool(ended) and "interrupted" in ended[-1].user_attrs

        return [trial for trial in self._queue() if begun(trial)]

    def _queue(self) -> list[FrozenTrial]:
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state == TrialState.WAITING]

    def _queued(self) -> dict[str, Any] | None:
        """Parameters of the configuration that is queued first: Optuna takes these in the order of their numbers."""
        waiting = [*self._interrupted(), *self._queue()]
        return waiting[0].system_attrs.get("fixed_params") if waiting else None

    def _ask(self) -> Trial:
        """The trial that is queued first, or a new one."""
        for trial in self._interrupted():
            if self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                return Trial(self.study, trial._trial_id)
        return self.study.ask()

    def _next_proposal(self) -> int:
        """The number that a proposal is drawn with: the first that no other has, however many attempts were killed."""
        trials = self.study.get_trials(deepcopy=False)
        used = {trial.user_attrs.get("proposal") for trial in trials if trial.user_attrs.get("discarded") != UNDRAWN}
        return next(number for number in range(len(trials) + 1) if number not in used)

    def _register(self, trial: Trial) -> Claim | None:
        """Give the trial its parameters and take their configuration, unless somebody has it."""
        self.study.sampler = self.plan.make_sampler(trial.user_attrs.get("proposal", 0))
        claim = self._fill(trial)
        with folder_lock(self.folder):
            others = [one for one in self.configurations.get(claim.name, []) if one.number != trial.number]
            queued = "configuration" in trial.user_attrs  # a grid point or a retry
            if not others or (queued and _lost(others)):
                trial.set_user_attr("configuration", claim.name)
                return claim
            trial.set_user_attr("discarded", f"same as {claim.name}")
            self.study.tell(trial, state=TrialState.FAIL)
            if not queued:
                self._propose_unseen(trial.number)
        return None

    def _fill(self, trial: Trial) -> Claim:
        params = self.plan.space.define(self.plan.config, trial)
        overrides = [*self.plan.space.fixed, *(override(key, value) for key, value in params.items())]
        return Claim(trial, identity(params), params, overrides)

    def _propose_unseen(self, number: int) -> None:
        """After a proposal that is known already: queue a point that is not, so that small spaces end."""
        known = self.configurations
        random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
        draws = (self.plan.space.define(self.plan.config, random.ask()) for _ in range(200))
        points: Iterator[dict[str, Any]] = self.plan.space.points(self.plan.config) if self.plan.space.size else draws
        for params in points:
            if (name := identity(params)) not in known:
                return self._enqueue(params, name)
        log.warning("the search space has only %d different points; the sweep ends with them", len(known))
        self.study.set_user_attr("exhausted", len(known))

    def _dead(self) -> dict[int, str | None]:
        """Numbers of the running trials whose workers are dead and whose SLURM jobs are over, with those workers.

        It is asked without the lock, so a trial may have no worker yet: only under the lock is that a sign of death.
        """
        running = [
            trial for trial in self.trials if trial.state == TrialState.RUNNING
        ]  # before it is asked who lives: none is claimed in between
        living = living_workers(self.folder)
        suspects = [trial for trial in running if trial.user_attrs.get("worker") not in living]
        states = job_states(sorted({job for trial in suspects for job in trial.user_attrs.get("jobs", [])}))
        return {
            trial.number: trial.user_attrs.get("worker")
            for trial in suspects
            if all(states.get(job, "COMPLETED") in ENDED for job in trial.user_attrs.get("jobs", []))
        }

    def _renew(self, dead: Mapping[int, str | None], lock: FolderLock) -> None:
        """End the trials of dead workers, unless a living one has just taken them; queue what failed but may be tried
        again.
        """
        for trial in self.trials:
            died = trial.number in dead and trial.user_attrs.get("worker") == dead[trial.number]
            if died and trial.state == TrialState.RUNNING:
                self._end_lost(trial)
        for name, trial in self._retryable().items():
            if lock.held:
                self._enqueue(trial.system_attrs.get("fixed_params", trial.params), name)

    def _end_lost(self, trial: FrozenTrial) -> None:
        name = trial.user_attrs.get("configuration")
        if name is None:
            self.storage.set_trial_user_attr(trial._trial_id, "discarded", UNDRAWN)
            self.study.tell(trial.number, state=TrialState.FAIL)
            return
        values = self.finished_values(name)
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        ConfigurationFolder(self.folder / name).write_record(
            name=name, params=params, trial=trial.number, attempts=len(self.configurations[name])
        )
        died = Outcome("failed", reason="its worker died (killed, or its node was lost)")
        self._finish(trial._trial_id, name, died if values is None else check(values, self.plan.objectives))

    def _retryable(self) -> dict[str, FrozenTrial]:
        return {
            name: attempts[-1]
            for name, attempts in self.configurations.items()
            if _lost(attempts) and _failures(attempts) <= self.plan.options.retries
        }

    def _finish(self, trial_id: int, name: str, outcome: Outcome) -> None:
        if self.storage.get_trial(trial_id).state.is_finished():
            return
        facts = outcome.facts | ({"interrupted": True} if outcome.state == "interrupted" else {})
        for key, value in (facts | ({"reason": outcome.reason} if outcome.reason else {})).items():
            self.storage.set_trial_user_attr(trial_id, key, value)
        # the folder first: who dies between the two leaves a running trial, which the next claim puts right
        facts = {
            "reason": outcome.reason,
            "values": outcome.values,
            "ended": time.time(),
            "traceback": "",
        } | outcome.facts
        if "seconds" in facts:  # of all attempts: each goes on where the last one stopped
            facts["seconds"] = round(seconds_of(self.configurations.get(name, ())), 3)
        ConfigurationFolder(self.folder / name).write_record(name=name, state=outcome.state, **facts)
        self.storage.set_trial_state_values(trial_id, STATES[outcome.state], outcome.values)

    def _enqueue_grid(self, lock: FolderLock) -> None:
        known = self.configurations
        for params in self.plan.grid or []:
            if not lock.held:  # this process was held up, and another has begun to queue
                return
            if (name := identity(params)) not in known:
                self._enqueue(params, name)

    def _enqueue(self, params: dict[str, Any], name: str) -> None:
        self.study.enqueue_trial(params, user_attrs={"configuration": name})


def seconds_of(attempts: Sequence[FrozenTrial]) -> float:
    """Seconds that the attempts at a configuration have taken."""
    return sum(trial.user_attrs.get("seconds", 0.0) for trial in attempts)


def _lost(attempts: Sequence[FrozenTrial]) -> bool:
    return all(trial.state == TrialState.FAIL for trial in attempts)


def _failures(attempts: Sequence[FrozenTrial]) -> int:
    return sum(trial.state == TrialState.FAIL and not trial.user_attrs.get("interrupted") for trial in attempts)
