"""A sweep through a launcher that runs batches (submitit): claim some configurations, launch them together, tell
all.
"""

import time
from typing import Any

from hydra.core.plugins import Plugins

from spectangle.console import console
from spectangle.runs.folder import Run
from spectangle.runs.sweep_folder import ConfigurationFolder
from spectangle.sweeps.claims import Claim, Outcome, check
from spectangle.sweeps.live_page import LivePage
from spectangle.sweeps.liveness import WorkerRecord
from spectangle.sweeps.plan import Plan
from spectangle.sweeps.status import StatusLine
from spectangle.sweeps.study import Study
from spectangle.sweeps.trial import App

__all__ = ["run_batches"]


def run_batches(plan: Plan, app: App, study: Study) -> None:
    """Launch batches until the study is done. A batch ends with its slowest run; workers have no such barrier.

    Jobs of a controller that was killed go on; the next one waits for them instead of starting them again.
    """
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=app.context, task_function=app.task_function, config=app.config
    )
    record = WorkerRecord(plan.folder, plan.options.heartbeat_s)
    try:
        page = LivePage(plan.folder)
        # taken for dead, its jobs are not: they are asked for by their numbers
        with record.beating(revive=True), StatusLine(study) as status:
            while not study.done:
                status.update()
                page.update()
                if claims := _claims(study, record.name, plan.options.batch):
                    _launch(plan, study, launcher, claims)
                else:
                    time.sleep(1)
    finally:
        record.remove()


def _claims(study: Study, worker: str, count: int) -> list[Claim]:
    claims = []
    while len(claims) < count and (claim := study.claim(worker)):
        claims.append(claim)
    return claims


def _launch(plan: Plan, study: Study, launcher: Any, claims: list[Claim]) -> None:
    seeds = plan.options.trial_seeds
    jobs = [
        (claim, run)
        for claim in claims
        for run in ConfigurationFolder(plan.folder / claim.name).runs(seeds)
        if not run.finished
    ]

    def note(index: int, job: str) -> None:
        claim = jobs[index][0]
        claim.trial.set_user_attr("jobs", [*claim.trial.user_attrs.get("jobs", []), job])

    if hasattr(launcher, "on_submit"):
        launcher.on_submit = note
    for claim, _ in jobs:
        _say_that_it_runs(plan, study, claim)
    overrides = [_overrides(plan, claim, run) for claim, run in jobs]
    start = time.monotonic()
    results = launcher.launch(overrides, initial_job_idx=claims[0].trial.number) if overrides else []
    reasons = {jobs[index][0].name: _reason(result) for index, result in enumerate(results) if _reason(result)}
    for claim in claims:
        outcome = _outcome(plan, claim, reasons.get(claim.name))
        outcome.facts["seconds"] = round(time.monotonic() - start, 3)
        study.tell(claim, outcome)
        if outcome.state == "failed":
            console.print(f"{claim.name} failed: {outcome.reason.splitlines()[0]}", markup=False)


def _say_that_it_runs(plan: Plan, study: Study, claim: Claim) -> None:
    """Write the record of a configuration."""
    facts = {"name": claim.name, "params": claim.params, "overrides": claim.overrides, "trial": claim.trial.number}
    facts |= {"config": plan.digest, "attempts": len(study.configurations[claim.name])}
    ConfigurationFolder(plan.folder / claim.name).write_record(**facts, started=time.time(), state="running", reason="")


def _overrides(plan: Plan, claim: Claim, run: Run) -> list[str]:
    """Those of one run: its configuration's, its seed if there are several, its folder."""
    seed = [] if plan.options.trial_seeds is None else [f"seed={run.path.name.removeprefix('seed=')}"]
    folder = [f"hydra.sweep.dir={plan.folder}", f"hydra.sweep.subdir={run.path.relative_to(plan.folder)}"]
    return [*claim.overrides, *seed, *folder]


def _outcome(plan: Plan, claim: Claim, reason: str | None) -> Outcome:
    """What its runs measured, or why one of them failed."""
    values = ConfigurationFolder(plan.folder / claim.name).objectives(plan.objectives, plan.options.trial_seeds)
    if values is None and reason is not None:
        return Outcome("failed", reason=reason)
    return check(values, plan.objectives)


def _reason(result: Any) -> str:
    try:
        _ = result.return_value
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
