"""Which configurations run again: those that are asked for, and those whose files are gone; and which are of an earlier
config.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from spectangle.console import console
from spectangle.errors import SpectangleError
from spectangle.runs.sweep_folder import ConfigurationFolder
from spectangle.sweeps.locks import folder_lock
from spectangle.sweeps.study import Study

__all__ = ["ASIDE", "keep_files", "renew_configurations"]

ASIDE = ".aside"  # sub-folder of a sweep where the files of configurations that run again are kept


def renew_configurations(study: Study) -> None:
    """Queue again what ``sweep.rerun`` names, what has lost its files and what failed with another config; say what was
    made with another one.

    Raises:
        SpectangleError: ``sweep.rerun`` names what is not there, or what runs just now.
    """
    asked = list(study.plan.options.rerun)
    with folder_lock(study.folder) as lock:
        known = study.configurations
        _refuse(asked, {name: attempts[-1].state == TrialState.RUNNING for name, attempts in known.items()})
        for name in asked:
            keep_files(study.folder / name)
        complete = [
            name for name, attempts in known.items() if any(trial.state == TrialState.COMPLETE for trial in attempts)
        ]
        gone = [name for name in complete if name not in asked and not _all_finished(study, name)]
        failed = [name for name in study.failed if name not in asked and _stale(study, name)]
        study.set_aside([*asked, *gone, *failed], lock)
    for name in complete:
        _mend_record(study, name, known[name])
    if gone:
        console.print(f"{', '.join(gone)}: finished, but the results are gone; they run again", markup=False)
    if failed:
        console.print(f"{', '.join(failed)}: failed with another config; tried again with this one", markup=False)
    if stale := [name for name in complete if name not in (*asked, *gone) and _stale(study, name)]:
        console.print(
            f"{len(stale)} finished configurations were made with another config and are kept: {', '.join(stale)}. "
            f"Run them again with sweep.rerun=[{','.join(stale)}].",
            markup=False,
        )


def _refuse(asked: Sequence[str], running: dict[str, bool]) -> None:
    if unknown := [name for name in asked if name not in running]:
        raise SpectangleError(
            f"sweep.rerun names {', '.join(unknown)}, which this sweep does not have; the names are those of its "
            "sub-folders."
        )
    if busy := [name for name in asked if running[name]]:
        raise SpectangleError(
            f"sweep.rerun names {', '.join(busy)}, which a worker is running; wait for it, or stop it first."
        )


def keep_files(folder: Path) -> None:
    """Set the files of a configuration aside, so that it starts from nothing."""
    place = folder.parent / ASIDE / f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.is_dir():
        place.parent.mkdir(exist_ok=True)
        folder.rename(place)


def _mend_record(study: Study, name: str, attempts: Sequence[FrozenTrial]) -> None:
    """Write the record of a finished configuration again if its file is damaged: the study knows what was in it."""
    folder, done = (
        ConfigurationFolder(study.folder / name),
        [trial for trial in attempts if trial.state == TrialState.COMPLETE],
    )
    if folder.path.is_dir() and "name" not in folder.record:
        facts = {
            "params": done[-1].params,
            "trial": done[-1].number,
            "values": done[-1].values,
            "attempts": len(attempts),
        }
        folder.write_record(name=name, state="complete", reason="", **facts)


def _all_finished(study: Study, name: str) -> bool:
    return all(run.finished for run in ConfigurationFolder(study.folder / name).runs(study.plan.options.trial_seeds))


def _stale(study: Study, name: str) -> bool:
    return ConfigurationFolder(study.folder / name).record.get("config", study.plan.digest) != study.plan.digest
