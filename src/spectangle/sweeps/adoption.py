"""Whose study it is: a sweep folder and its study belong together, and hold one sweep."""

import json
import uuid
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from spectangle.errors import SpectangleError
from spectangle.files import redacted
from spectangle.runs.sweep_folder import sweep_record
from spectangle.sweeps.plan import Plan
from spectangle.sweeps.storage import open_storage

__all__ = ["adopted", "identified", "open_study", "refuse_change"]


def identified(plan: Plan, storage: optuna.storages.BaseStorage) -> dict[str, str]:
    """The id of a sweep folder and the name of its study: those of an earlier start, or new ones.

    The name of the folder alone would not do: folders of one name may share a database, and a folder may be renamed.
    """
    record = sweep_record(plan.folder)
    if (
        not record and not plan.options.storage and len(known := storage.get_all_studies()) == 1
    ):  # sweep.json is lost; a journal lies in the folder
        record = {"id": known[0].user_attrs.get("sweep"), "study_name": known[0].study_name}
    number = record.get("id") or uuid.uuid4().hex[:8]
    return {
        "id": number,
        "study_name": plan.options.study_name or record.get("study_name") or f"{plan.folder.name}-{number}",
    }


def open_study(plan: Plan, storage: optuna.storages.BaseStorage, identity: dict[str, str]) -> optuna.Study:
    """Open the study of a folder, or create it.

    Raises:
        SpectangleError: The study in the database is that of another folder.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=identity["study_name"],
        directions=plan.directions,  # pyright: ignore
        pruner=plan.make_pruner(),
        load_if_exists=True,
    )
    facts, url = study.user_attrs, plan.options.storage
    other, place = facts.get("sweep", identity["id"]) != identity["id"], Path(facts.get("folder", plan.folder))
    copied = place != plan.folder and sweep_record(place).get("id") == identity["id"]
    if url and (other or copied):
        hint = f", or delete {plan.folder}/sweep.json, which is a copy" if copied else ""
        raise SpectangleError(
            f"The study {identity['study_name']} in {redacted(url)} is that of the sweep in {place}; give another "
            f"sweep.study_name{hint}."
        )
    for key, value in (("sweep", identity["id"]), ("folder", str(plan.folder))):
        if facts.get(key) != value:
            study.set_user_attr(key, value)
    return study


def adopted(
    plan: Plan, study: optuna.Study, storage: optuna.storages.BaseStorage, identity: dict[str, str]
) -> optuna.Study:
    """The study, which now holds this plan; a changed search space needs a new one, with what is known already.

    Raises:
        SpectangleError: The study holds another plan, and ``sweep.allow_change`` is not set.
    """
    now, then = _now(plan), study.user_attrs.get("plan")
    _check_change(plan, then, now)
    if then is not None and then["swept"] != now["swept"]:
        study = _started_anew(
            plan, study, storage, identity
        )  # Optuna cannot change the values of a categorical parameter
    if then != now:
        study.set_user_attr("plan", now)
    return study


def refuse_change(plan: Plan) -> None:
    """Look whether the folder holds a sweep of another plan, without writing to it.

    Raises:
        SpectangleError: It does, and ``sweep.allow_change`` is not set; or its study cannot be opened.
    """
    if not sweep_record(plan.folder) and not (plan.folder / "study.log").is_file():
        return
    storage = open_storage(plan.options.storage, plan.folder, repair=False)
    identity = identified(plan, storage)
    for study in storage.get_all_studies():
        if study.study_name == identity["study_name"] and study.user_attrs.get("sweep") == identity["id"]:
            _check_change(plan, study.user_attrs.get("plan"), _now(plan))


def _now(plan: Plan) -> dict[str, Any]:
    """What a plan fixes, as a study keeps it."""
    return json.loads(json.dumps(plan.fingerprint(), default=str))


def _check_change(plan: Plan, then: dict[str, Any] | None, now: dict[str, Any]) -> None:
    if then is not None and then != now and not plan.options.allow_change:
        raise SpectangleError(
            f"{plan.folder} holds a sweep that differs: {_difference(then, now)}. Give another sweep.dir, "
            "undo the change, or go on all the same with sweep.allow_change=true (what is finished then keeps its "
            "numbers)."
        )


def _started_anew(
    plan: Plan, study: optuna.Study, storage: optuna.storages.BaseStorage, identity: dict[str, str]
) -> optuna.Study:
    kept, space = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)), plan.space.swept
    optuna.delete_study(study_name=identity["study_name"], storage=storage)
    study = open_study(plan, storage, identity)
    for trial in kept:
        if trial.params.keys() == space.keys() and all(
            _contains(space[key], value) for key, value in trial.params.items()
        ):
            trial.distributions = dict(space)
            study.add_trial(trial)
    return study


def _contains(distribution: optuna.distributions.BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    words = []
    for part in now:
        if part in ("fixed", "config", "swept") and then.get(part) != now[part]:
            a, b = (
                value if isinstance(value, dict) else dict.fromkeys(value or [])
                for value in (then.get(part) or {}, now[part])
            )
            keys = sorted(key for key in {*a, *b} if a.get(key) != b.get(key) or (key in a) != (key in b))
            if part == "fixed":  # words of the command line, each with its value
                old, new = ([key for key in keys if key in side] for side in (a, b))
                words.append(f"fixed (was {_few(old) or 'nothing'}; is {_few(new) or 'nothing'})")
            else:
                words.append(f"{part} ({_few(keys)})")
        elif then.get(part) != now[part]:
            words.append(f"{part} (was {then.get(part)}, is {now[part]})")
    return "; ".join(words)


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:6]) + (", ..." if len(keys) > 6 else "")
