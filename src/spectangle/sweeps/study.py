"""The study: who runs which configuration, and how it ended. Any number of workers share it.

Two short critical sections keep it right: *claim* (find dead workers, renew their trials, take the next one) and
*register* (no configuration is taken twice). All else is derived from the trials, so that a worker may die anywhere.
Each attempt is an Optuna trial; a configuration may have several.
"""

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from spectangle.errors import SpectangleError
from spectangle.runs import ConfigurationFolder, write_sweep_record
from spectangle.sweeps.liveness import ENDED, job_states, living_workers
from spectangle.sweeps.plan import Plan
from spectangle.sweeps.space import identity, override
from spectangle.sweeps.storage import alone, open_storage

__all__ = ["Claim", "Outcome", "Study", "check"]

log = logging.getLogger(__name__)
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL, "interrupted": TrialState.FAIL}


@dataclass
class Claim:
    """A configuration that this worker has to run: its trial, name, parameters and overrides."""

    trial: Trial
    name: str
    params: dict[str, Any]
    overrides: list[str]


@dataclass
class Outcome:
    """How an attempt ended: ``complete``, ``pruned``, ``failed`` or ``interrupted`` (the job's end, not the run's fault)."""

    state: str
    values: list[float] | None = None
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class Study:
    """The Optuna study of a plan, opened or created.

    Raises:
        SpectangleError: The folder holds a sweep of another space or config, and ``sweep.allow_change`` is not set.
    """

    def __init__(self, plan: Plan):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.plan, self.folder = plan, plan.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder):
            self.storage = open_storage(plan.options.storage, self.folder)
            self.study = self._open()
            self._compare()
            self._enqueue_grid()
        write_sweep_record(self.folder, plan.record())

    def claim(self, worker: str) -> Claim | None:
        """Take the next configuration, or None if there is none to take now (see :attr:`done`)."""
        with alone(self.folder):
            self._renew()
            if self.too_many_failures or not self._has_next():
                return None
            trial = self.study.ask()
            trial.set_user_attr("worker", worker)
        try:
            return self._register(trial)
        except BaseException as error:
            self.study.tell(trial, state=TrialState.FAIL)
            if isinstance(error, optuna.TrialPruned):
                return self.claim(worker)
            raise

    def tell(self, claim: Claim, outcome: Outcome) -> None:
        """Record how an attempt ended, in the study and in the folder of the configuration."""
        self._finish(claim.trial._trial_id, claim.name, outcome)

    @property
    def trials(self) -> list[FrozenTrial]:
        """Every attempt, without proposals that turned out to be known."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if "discarded" not in trial.user_attrs]

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
        open_states = (TrialState.RUNNING, TrialState.WAITING)
        trials = self.trials
        busy = any(trial.state in open_states for trial in trials)
        if self.too_many_failures:
            return not any(trial.state == TrialState.RUNNING for trial in trials)
        return not busy and not self._retryable() and len(self.configurations) >= self.n_trials

    @property
    def failed(self) -> list[str]:
        """Configurations that failed for good."""
        return [name for name, attempts in self.configurations.items() if _lost(attempts) and _failures(attempts) > self.plan.options.retries]

    @property
    def too_many_failures(self) -> bool:
        return len(self.failed) > self.plan.options.max_failure_rate * self.n_trials

    @property
    def n_trials(self) -> int:
        """Configurations in total: fewer than planned if the space has no more."""
        return min(self.plan.n_trials, self.study.user_attrs.get("exhausted", self.plan.n_trials))

    def _has_next(self) -> bool:
        trials = self.trials
        if any(trial.state == TrialState.WAITING for trial in trials):
            return True
        sampling = sum(trial.state == TrialState.RUNNING and "configuration" not in trial.user_attrs for trial in trials)
        return len(self.configurations) + sampling < self.n_trials

    def _register(self, trial: Trial) -> Claim | None:
        """Give the trial its parameters and take their configuration, unless somebody has it."""
        self.study.sampler = self.plan.make_sampler(trial.number)
        claim = self._fill(trial)
        with alone(self.folder):
            if "configuration" in trial.user_attrs:  # a grid point or a retry
                return claim
            if claim.name not in self.configurations:
                trial.set_user_attr("configuration", claim.name)
                return claim
            trial.set_user_attr("discarded", f"same as {claim.name}")
            self.study.tell(trial, state=TrialState.FAIL)
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
                return self.study.enqueue_trial(params, user_attrs={"configuration": name})
        log.warning("the search space has only %d different points; the sweep ends with them", len(known))
        self.study.set_user_attr("exhausted", len(known))

    def _renew(self) -> None:
        """End the trials of dead workers, and queue what failed but may be tried again."""
        living = living_workers(self.folder)
        for trial in self.trials:
            if trial.state == TrialState.RUNNING and trial.user_attrs.get("worker") not in living and not _in_queue(trial):
                self._end_lost(trial)
        for name, trial in self._retryable().items():
            params = trial.system_attrs.get("fixed_params", trial.params)
            self.study.enqueue_trial(params, user_attrs={"configuration": name})

    def _end_lost(self, trial: FrozenTrial) -> None:
        name = trial.user_attrs.get("configuration")
        if name is None:
            self.study._storage.set_trial_user_attr(trial._trial_id, "discarded", "its worker died before it was drawn")
            self.study.tell(trial.number, state=TrialState.FAIL)
            return
        values = self.finished_values(name)
        params = trial.params or trial.system_attrs.get("fixed_params", {})
        ConfigurationFolder(self.folder / name).write_record(name=name, params=params, trial=trial.number, attempts=len(self.configurations[name]))
        died = Outcome("failed", reason="its worker died (killed, or its node was lost)")
        self._finish(trial._trial_id, name, died if values is None else check(values, self.plan.objectives))

    def _retryable(self) -> dict[str, FrozenTrial]:
        return {
            name: attempts[-1]
            for name, attempts in self.configurations.items()
            if _lost(attempts) and _failures(attempts) <= self.plan.options.retries
        }

    def finished_values(self, name: str) -> list[float] | None:
        """Objectives of a configuration whose runs are all finished: their mean over seeds."""
        return ConfigurationFolder(self.folder / name).objectives(self.plan.objectives, self.plan.options.trial_seeds)

    def _finish(self, trial_id: int, name: str, outcome: Outcome) -> None:
        storage, folder = self.study._storage, ConfigurationFolder(self.folder / name)
        if storage.get_trial(trial_id).state.is_finished():
            return
        facts = outcome.facts | ({"interrupted": True} if outcome.state == "interrupted" else {})
        for key, value in (facts | ({"reason": outcome.reason} if outcome.reason else {})).items():
            storage.set_trial_user_attr(trial_id, key, value)
        # the folder first: who dies between the two leaves a running trial, which the next claim puts right
        folder.write_record(state=outcome.state, reason=outcome.reason, values=outcome.values, ended=time.time(), **outcome.facts)
        storage.set_trial_state_values(trial_id, STATES[outcome.state], outcome.values)

    def _enqueue_grid(self) -> None:
        known = self.configurations
        for params in self.plan.grid or []:
            if (name := identity(params)) not in known:
                self.study.enqueue_trial(params, user_attrs={"configuration": name})

    def _compare(self) -> None:
        """Refuse to mix two different sweeps in one folder."""
        now, then = json.loads(json.dumps(self.plan.fingerprint(), default=str)), self.study.user_attrs.get("plan")
        if then is not None and then != now and not self.plan.options.allow_change:
            raise SpectangleError(
                f"{self.folder} holds a sweep that differs: {_difference(then, now)}. Give another sweep.dir, "
                "undo the change, or go on all the same with sweep.allow_change=true."
            )
        if then is not None and then["swept"] != now["swept"]:
            self._start_anew()  # Optuna cannot change the values of a categorical parameter
        if then != now:
            self.study.set_user_attr("plan", now)

    def _open(self) -> optuna.Study:
        return optuna.create_study(
            storage=self.storage,
            study_name=self.plan.study_name,
            directions=self.plan.directions,  # pyright: ignore
            pruner=self.plan.make_pruner(),
            load_if_exists=True,
        )

    def _start_anew(self) -> None:
        """Replace the study by one that knows the finished trials that lie in the new space."""
        kept, space = self.study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)), self.plan.space.swept
        optuna.delete_study(study_name=self.plan.study_name, storage=self.storage)
        self.study = self._open()
        for trial in kept:
            if trial.params.keys() == space.keys() and all(_contains(space[key], value) for key, value in trial.params.items()):
                trial.distributions = dict(space)
                self.study.add_trial(trial)


def check(values: list[float] | None, names: list[str]) -> Outcome:
    """The outcome of runs that have ended without an error."""
    if values is None:
        return Outcome("failed", reason=f"it ended without {', '.join(names)} in metrics.json")
    if wrong := [f"{name} is {value}" for name, value in zip(names, values, strict=True) if not math.isfinite(value)]:
        return Outcome("failed", reason=", ".join(wrong))
    return Outcome("complete", values)


def _contains(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False


def _in_queue(trial: FrozenTrial) -> bool:
    """Whether a SLURM job of a trial is still queued or running, though its controller is gone."""
    jobs = trial.user_attrs.get("jobs", [])
    return bool(jobs) and any(state not in ENDED for state in job_states(jobs).values())


def _lost(attempts: Sequence[FrozenTrial]) -> bool:
    return all(trial.state == TrialState.FAIL for trial in attempts)


def _failures(attempts: Sequence[FrozenTrial]) -> int:
    return sum(trial.state == TrialState.FAIL and not trial.user_attrs.get("interrupted") for trial in attempts)


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    words = []
    for part in now:
        if part in ("fixed", "config", "swept") and then.get(part) != now[part]:
            a, b = (value if isinstance(value, dict) else dict.fromkeys(value or []) for value in (then.get(part) or {}, now[part]))
            keys = sorted(key for key in {*a, *b} if a.get(key) != b.get(key) or (key in a) != (key in b))
            words.append(f"{part} ({', '.join(keys[:6])}{', ...' if len(keys) > 6 else ''})")
        elif then.get(part) != now[part]:
            words.append(f"{part} (was {then.get(part)}, is {now[part]})")
    return "; ".join(words)
