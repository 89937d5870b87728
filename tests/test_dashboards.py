"""Dashboards: every panel shows what a real run logs, TensorBoard and MLflow get the same names, a sweep has its
summary.
"""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, Command
from conftest import write_toy_survey

from spectangle.errors import SpectangleError
from spectangle.runs.folder import Run
from spectangle.synthetic import LABELS
from spectangle.tracking.wandb_files import merge, read, segments
from spectangle.tracking.workspace import layout

SMALL = [
    "data=survey",
    "model=tiny",
    "trainer.max_epochs=2",
    "threads=1",
    "regressor.epochs=5",
    "callbacks.figures=null",
    "callbacks.probes.bootstrap=10",
]
SMALL += ["probes=quick", "callbacks.probes.small_below=0", "callbacks.probes.every_n_epochs=2", "lambdas=first_pair"]

SWEEP = """
defaults:
  - config
  - override data: survey
  - override model: tiny
  - override logger: wandb
  - override hydra/sweeper: spectangle
  - override hydra/sweeper/sampler: grid
  - override hydra/sweeper/pruner: median
  - _self_
data: {{path: {survey}}}
trainer: {{max_epochs: 6}}
regressor: {{epochs: 3}}
objective: val/reconstruction
callbacks: {{probes: null, figures: null}}
hydra:
  mode: MULTIRUN
  sweep: {{dir: "{folder}"}}
  sweeper: {{params: {{optimizer.lr: "choice(0.01,0.02,1e-9)"}}, pruner: {{n_startup_trials: 2, n_warmup_steps: 1}}}}
"""


@pytest.fixture(scope="module")
def survey(tmp_path_factory) -> Path:
    return write_toy_survey(tmp_path_factory.mktemp("survey") / "toy.h5", n=160, n_pixels=20)


@pytest.fixture
def command(monkeypatch, capsys):
    return Command(monkeypatch, capsys)


def logged(name: str, survey: Path, folder: Path, command: Command, *options: str) -> Run:
    where = [f"data.path={survey}", f"hydra.run.dir={folder}"]
    code, _, errors = command("train", *SMALL, f"logger={name}", *where, *options)
    assert code == 0, errors
    return Run(folder)


def test_every_panel_shows_what_a_run_logs(survey: Path, tmp_path: Path, command):
    logged("wandb", survey, tmp_path / "run", command)
    found = read(segments(tmp_path / "run"))
    history = {key for row in found["history"] for key in row}
    panels = [panel for section in layout(LABELS).values() for panel in section]
    for panel in panels:
        for metric in panel.metrics:
            kept = history if panel.kind == "line" else found["summary"]
            assert metric in kept, f"{panel.title} shows {metric}, which no run logs"
        for key in panel.config:
            node = found["config"]
            for part in key.split("."):
                assert part in node, f"{panel.title} shows {key}, which is not in the config"
                node = node[part]
    shown = {metric for panel in panels for metric in panel.metrics}
    wanted = {name for name in history if name.endswith("/reconstruction") or "discriminator_gain" in name}
    wanted |= {
        f"{kind}/{label}{end}"
        for label in LABELS
        for kind, end in (("probe", "/r2"), ("disentanglement", ""), ("test/latent", "/mae"), ("test/spectra", "/mae"))
    }
    assert wanted <= shown, f"no panel shows {sorted(wanted - shown)}"


def test_the_dashboard_is_written_without_network(tmp_path: Path, command):
    pytest.importorskip("wandb_workspaces")
    code, out, errors = command(
        "dashboard", "entity=me", "project=p", f"save={tmp_path / 'workspace.json'}", "pair=first_pair", "survey=toy"
    )
    assert code == 0 and "workspace.json" in out, errors
    view = json.loads((tmp_path / "workspace.json").read_text())
    section = view["spec"]["section"]
    assert [item["name"] for item in section["panelBankConfig"]["sections"]] == [
        "Adversarial training",
        "What the latent knows",
        "Downstream",
        "Sweep",
    ]
    filters = {item["key"]["name"]: item["value"] for item in section["runSets"][0]["filters"]["filters"]}
    assert filters == {"pair": "first_pair", "survey": "toy"}
    text = json.dumps(section["panelBankConfig"])
    assert all(metric in text for panels in layout(LABELS).values() for panel in panels for metric in panel.metrics)


def test_the_dashboard_has_the_labels_of_a_run(tmp_path: Path, command):
    pytest.importorskip("wandb_workspaces")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("{}")
    (tmp_path / "manifest.json").write_text(json.dumps({"survey": {"units": {"vsini": "km/s"}}}))
    words = ["entity=me", "project=p", f"save={tmp_path / 'workspace.json'}"]
    code, _, errors = command("dashboard", *words, f"run={tmp_path}")
    assert code == 0, errors
    text = (tmp_path / "workspace.json").read_text()
    assert "test/latent/vsini/mae" in text and "teff" not in text
    code, _, _ = command("dashboard", *words, "labels=[age,c_fe]")
    text = (tmp_path / "workspace.json").read_text()
    assert code == 0 and "test/latent/age/mae" in text and "vsini" not in text


@pytest.mark.parametrize("labels", [("age",), ("age", "c_fe"), ("age", "c_fe", "vsini"), LABELS])
def test_each_label_is_set_against_another_if_there_is_one(labels):
    scatter = [panel.metrics for panel in layout(labels)["Sweep"] if panel.kind == "scatter"]
    assert len(scatter) == (len(labels) if len(labels) > 1 else 0) and all(a != b for a, b in scatter)


def test_a_dashboard_needs_an_entity(command):
    code, _, errors = command("dashboard", "project=p")
    assert code == 1 and "entity" in errors


def test_a_dashboard_needs_a_server_that_answers(command, monkeypatch):
    """After half a minute wandb's own words were that a service is busy."""
    arguments = ("dashboard", "entity=me", "project=stars")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    code, _, err = command(*arguments)
    assert code == 1 and "127.0.0.1:9 does not answer from here" in err and "save=workspace.json" in err
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", "/nowhere")
    assert "There is no key" in command(*arguments)[2]


def test_tensorboard_gets_the_same_names(survey: Path, tmp_path: Path, command):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = [f"logger.save_dir={tmp_path / 'curves'}", "logger.name=mine", "logger.version=v7"]
    run = logged("tensorboard", survey, tmp_path / "run", command, *place)
    events = EventAccumulator(str(tmp_path / "curves" / "mine" / "v7"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert set(run.metrics) <= scalars and {name for row in run.history for name in row} <= scalars
    assert [event.value for event in events.Scalars("val/reconstruction")] == pytest.approx(
        [row["val/reconstruction"] for row in run.history], rel=1e-5
    )


def test_mlflow_gets_the_same_names(survey: Path, tmp_path: Path, command):
    pytest.importorskip("mlflow")
    names = ["logger.experiment_name=mine", "logger.run_name=first"]
    uri = f"logger.tracking_uri=sqlite:///{tmp_path}/other.db"
    run = logged("mlflow", survey, tmp_path / "run", command, *names, uri)
    with sqlite3.connect(tmp_path / "other.db") as store:
        assert ("mine",) in store.execute("select name from experiments").fetchall()
        assert store.execute("select name from runs").fetchall() == [("first",)]
        names = {row[0] for row in store.execute("select distinct key from metrics")}
        assert set(run.metrics) <= names and {name for row in run.history for name in row} <= names
        assert store.execute("select status from runs").fetchall() == [("FINISHED",)]
        assert store.execute("select value from params where key = 'lambdas.teff'").fetchall() == [("-1.0",)]


@pytest.fixture
def interrupted(survey: Path, tmp_path: Path, command, monkeypatch):
    """Train a run of four epochs that stops in its third, and resume it."""

    def run(name: str) -> Run:
        folder = tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.setattr("spectangle.training.progress.EpochProgress.on_train_epoch_end", stop_in_the_third_epoch)
            code, _, _ = command(
                "train",
                *SMALL,
                f"data.path={survey}",
                f"logger={name}",
                "trainer.max_epochs=4",
                f"hydra.run.dir={folder}",
            )
            assert code == 1 and len(Run(folder).history) == 3  # the third epoch is logged, but not in the checkpoint
        code, _, errors = command("train", f"resume={folder}")
        assert code == 0, errors
        return Run(folder)

    return run


def stop_in_the_third_epoch(self, trainer, pl_module):
    if trainer.current_epoch == 2:
        raise SpectangleError("the node died")


def test_mlflow_goes_on_in_the_same_run(interrupted):
    pytest.importorskip("mlflow")
    run = interrupted("mlflow")
    with sqlite3.connect(run.path / "mlflow.db") as store:
        assert store.execute("select run_uuid, status from runs").fetchall() == [
            (json.loads((run.path / "mlflow.json").read_text())["run_id"], "FINISHED")
        ]
        for name in ("val/reconstruction", "train/loss"):
            curve = store.execute("select value from metrics where key = ? order by step", (name,)).fetchall()
            assert [value for (value,) in curve] == pytest.approx([row[name] for row in run.history], rel=1e-6)
        assert store.execute("select value from params where key = 'regressor.epochs'").fetchall() == [
            ("5",)
        ]  # MLflow never changes one


def test_mlflow_starts_again_in_a_store_that_was_emptied(survey: Path, tmp_path: Path, command):
    pytest.importorskip("mlflow")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mlflow.json").write_text(json.dumps({"run_id": "0" * 32}))
    run = logged("mlflow", survey, tmp_path / "run", command)
    with sqlite3.connect(run.path / "mlflow.db") as store:
        ((found,),) = store.execute("select run_uuid from runs").fetchall()
    assert found == json.loads((run.path / "mlflow.json").read_text())["run_id"] != "0" * 32


def test_a_pruned_run_is_killed_in_mlflow(tmp_path: Path):
    pytest.importorskip("mlflow")
    from spectangle.tracking.mlflow_run import MlflowRun

    logger = MlflowRun(str(tmp_path), "e", "r", f"sqlite:///{tmp_path}/mlflow.db")
    logger.log_hyperparams({"a": 1})
    logger.finalize("failed")  # the trainer's word for any exception
    logger.finalize("pruned")
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("KILLED",)]


def test_tensorboard_goes_on_in_the_same_folder(interrupted):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = interrupted("tensorboard")
    assert {path.parent for path in run.path.rglob("events.out.*")} == {run.path / "tensorboard"}
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    curve = {
        event.step: event.value for event in events.Scalars("train/loss")
    }  # the third epoch is there twice, in the same place
    assert list(curve.values()) == pytest.approx([row["train/loss"] for row in run.history], rel=1e-5)


def test_wandb_goes_on_with_whole_epochs(interrupted, tmp_path: Path):
    run = interrupted("wandb")
    found = read(merge(segments(run.path), tmp_path / "whole.wandb"))
    curves = [row for row in found["history"] if "val/reconstruction" in row]
    assert [row["epoch"] for row in curves] == list(range(4)) and found["exit"] == 0
    assert [row["train/loss"] for row in curves] == pytest.approx([row["train/loss"] for row in run.history], rel=1e-6)


def test_a_failed_job_is_failed_in_mlflow(survey: Path, tmp_path: Path, command):
    pytest.importorskip("mlflow")
    code, _, _ = command(
        "train", *SMALL, f"data.path={survey}", "model.latent=-1", "logger=mlflow", f"hydra.run.dir={tmp_path}"
    )
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        assert code == 1 and store.execute("select status from runs").fetchall() == [("FAILED",)]


@pytest.fixture(scope="module")
def swept(survey: Path, tmp_path_factory) -> tuple[Path, dict[str, dict]]:
    """A sweep of three, one of them pruned, in a process of its own, as W&B's summary needs it; what its runs logged,
    by folder.
    """
    folder = tmp_path_factory.mktemp("sweep") / "little"
    (folder.parent / "toy.yaml").write_text(SWEEP.format(survey=survey, folder=folder))
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    line = [sys.executable, str(ROOT / "train.py"), "-cd", str(folder.parent), "-cn", "toy"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, {path.parent.name: read(segments(path.parent)) for path in folder.glob("*/trial.json")}


def test_a_sweep_has_a_run_for_each_job_and_a_summary(swept):
    folder, runs = swept
    assert len(runs) == 3 and all(run["run"]["group"].startswith("little-") for run in runs.values())
    assert all(name in run["run"]["id"] and run["exit"] == 0 for name, run in runs.items())
    summary = read(segments(folder))
    assert (
        summary["run"]["job_type"] == "sweep-summary"
        and summary["run"]["group"].startswith("little-")
        and summary["exit"] == 0
    )
    table = summary["summary"]["sweep/leaderboard"]
    path = segments(folder)[0].parent / "files" / table["path"]
    assert {row[1] for row in json.loads(path.read_text())["data"]} == set(runs)
    assert summary["summary"]["sweep/done"] == 3 and "sweep/pareto" in summary["summary"]


def test_a_pruned_run_has_ended_well_and_says_that_it_was_pruned(swept):
    folder, runs = swept
    states = {name: json.loads((folder / name / "trial.json").read_text())["state"] for name in runs}
    assert sorted(states.values()) == ["complete", "complete", "pruned"]
    assert {name: run["summary"]["state"].replace("finished", "complete") for name, run in runs.items()} == states
    pruned = next(run for name, run in runs.items() if states[name] == "pruned")
    assert (
        pruned["exit"] == 0
        and pruned["summary"]["error"] == ""
        and "stopped by the pruner in epoch" in pruned["summary"]["reason"]
    )
    assert 1 < len([row for row in pruned["history"] if "val/reconstruction" in row]) < 6
    assert read(segments(folder))["summary"]["sweep/pruned"] == 1
