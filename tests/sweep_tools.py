"""Start sweeps of the stand-in command as a user would, and read what they left."""

import os
import subprocess
import sys
import time
from pathlib import Path

import optuna
import yaml

from spectangle.runs.sweep_folder import ConfigurationFolder, sweep_record
from spectangle.sweeps.storage import open_storage

APP = Path(__file__).parent / "sweep_app.py"
RUN = {
    "x": 1.0,
    "y": 1,
    "epochs": 2,
    "epoch_s": 0.0,
    "fail": "none",
    "fail_epoch": 1,
    "fail_tries": 1000,
    "objective": "score",
    "seed": 0,
}
TRAIN = APP.parents[1] / "train.py"
optuna.logging.set_verbosity(optuna.logging.WARNING)


def write_sweep(folder: Path, name: str = "toy", sampler: str = "grid", params: dict | None = None, **options) -> Path:
    """Write a primary config for the stand-in command; options are keys of the sweeper."""
    config = (
        {
            "defaults": [
                {"override hydra/sweeper": "spectangle"},
                {"override hydra/sweeper/sampler": sampler},
                {"override hydra/hydra_logging": "none"},
                "_self_",
            ],
        }
        | RUN
        | {"hydra": {"mode": "MULTIRUN", "sweep": {"dir": str(folder / "sweep")}}}
    )
    config["hydra"]["sweeper"] = {
        "preload": [],
        "heartbeat_s": 0.5,
        "params": {"x": "choice(0.1, 0.2, 0.3)", "y": "choice(1, 2)"} if params is None else params,
    } | options
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / "sweep"


def write_plain(folder: Path) -> None:
    """Write a primary config without a sweeper, ``plain.yaml``, for Hydra's own."""
    config = {"defaults": [{"override hydra/hydra_logging": "none"}, "_self_"]} | RUN
    (folder / "plain.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def command(folder: Path, *arguments: str, name: str = "toy") -> list[str]:
    return [sys.executable, str(APP), "-cd", str(folder), "-cn", name, *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def start(folder: Path, *arguments: str, name: str = "toy") -> subprocess.Popen:
    return subprocess.Popen(
        command(folder, *arguments, name=name),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        cwd=folder,
    )


def sweep(folder: Path, *arguments: str, name: str = "toy", code: int | None = 0, timeout: float = 240) -> str:
    """Run a sweep to its end and return what it printed."""
    process = start(folder, *arguments, name=name)
    output, _ = process.communicate(timeout=timeout)
    assert code is None or process.returncode == code, output
    return output


def records(folder: Path) -> dict[str, dict]:
    """The record of each configuration by its overrides, for instance ``x=0.1 y=1``."""
    found = [ConfigurationFolder(path.parent).record for path in sorted(folder.glob("*/trial.json"))]
    assert len({record["name"] for record in found}) == len(found)
    return {" ".join(f"{key}={value}" for key, value in record["params"].items()): record for record in found}


def starts(folder: Path) -> dict[str, int]:
    """How often the runs of each configuration were started."""
    return {path.parent.name: len(path.read_text().splitlines()) for path in sorted(folder.glob("*/starts.log"))}


def trials(folder: Path, storage: str | None = None) -> list[optuna.trial.FrozenTrial]:
    """Every attempt in the study."""
    study = optuna.load_study(storage=open_storage(storage, folder), study_name=sweep_record(folder)["study_name"])
    return [trial for trial in study.get_trials() if "discarded" not in trial.user_attrs]


def wait_for(condition, seconds: float = 60) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
