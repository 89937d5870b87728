"""What a worker gets from the study, and what it gives back."""

import math
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import Trial, TrialState

__all__ = ["STATES", "Claim", "Outcome", "check"]

STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "interrupted": TrialState.FAIL,
}


@dataclass
class Claim:
    """A configuration that this worker has to run: its trial, name, parameters and overrides."""

    trial: Trial
    name: str
    params: dict[str, Any]
    overrides: list[str]


@dataclass
class Outcome:
    """How an attempt ended: ``complete``, ``pruned``, ``failed`` or ``interrupted`` (the job's end, not the run's
    fault).
    """

    state: str
    values: list[float] | None = None
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def check(values: list[float] | None, names: list[str]) -> Outcome:
    """The outcome of runs that have ended without an error."""
    if values is None:
        return Outcome("failed", reason=f"it ended without {', '.join(names)} in metrics.json")
    if wrong := [f"{name} is {value}" for name, value in zip(names, values, strict=True) if not math.isfinite(value)]:
        return Outcome("failed", reason=", ".join(wrong))
    return Outcome("complete", values)
