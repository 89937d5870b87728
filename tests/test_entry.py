"""Entering a run folder: no two experiments in one, no two processes in one, and nothing is lost when a run goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
import torch
from commands import ROOT, Command, run_train
from filelock import FileLock
from omegaconf import OmegaConf

from spectangle.errors import SpectangleError
from spectangle.evaluation.downstream import DownstreamRegressor
from spectangle.runs.folder import Run
from spectangle.runs.ownership import OWNER, Superseded, check_owner, owned
from spectangle.signals import Stopped

BARE = [
    "data=survey",
    "model=tiny",
    "threads=1",
    "callbacks.regressor=null",
    "callbacks.probes=null",
    "callbacks.figures=null",
]
MEASURED = [
    "data=survey",
    "model=tiny",
    "threads=1",
    "lambdas=first_pair",
    "regressor.epochs=3",
    "probes=quick",
    "callbacks.figures=null",
    "callbacks.regressor.every_n_epochs=2",
    "callbacks.probes.every_n_epochs=2",
    "trainer.max_epochs=2",
    "objective=[val/latent/teff/mae,val/excess/m_h + val/excess/alpha_fe]",
]


@pytest.fixture
def train(monkeypatch, capsys, toy_survey):
    command = Command(monkeypatch, capsys)
    return lambda *arguments: command(
        "train", *arguments, *([] if arguments[0].startswith("resume=") else [f"data.path={toy_survey}"])
    )


def start(*arguments: str, cwd: Path) -> subprocess.Popen:
    line = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(condition, process: subprocess.Popen, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


def comparable(run: Path) -> dict[str, float]:
    return {key: value for key, value in Run(run).metrics.items() if not key.startswith(("time/", "memory/"))}


# ---------------------------------------------------------------------- one experiment, one process


def test_runs_of_one_second_have_folders_of_their_own(train, tmp_path, monkeypatch):
    class Clock:
        @staticmethod
        def now():
            return datetime(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("hydra.core.utils.datetime", Clock)  # ${now:}
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1, 2, 3):
        code, _, err = train(*BARE, "trainer.max_epochs=1", f"seed={seed}", *(["-m"] if seed > 1 else []))
        assert code == 0, err
    folders = sorted(path.parent for path in tmp_path.glob("runs/**/metrics.json"))
    assert sum("2026-01-02/03-04-05-" in str(folder) for folder in folders) == len(folders) == 4
    runs = [Run(folder) for folder in folders]
    assert sorted(run.manifest["seed"] for run in runs) == sorted(run.config["seed"] for run in runs) == [0, 1, 2, 3]


def test_a_finished_run_is_not_read_as_another_experiment(train, tmp_path):
    assert train(*BARE, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path}")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / ".hydra").iterdir()}
    code, _, err = train(*BARE, "trainer.max_epochs=1", "model.latent=7", "seed=5", f"hydra.run.dir={tmp_path}")
    assert code == 1 and "model.latent (was 4, is 7)" in err and "seed (was 0, is 5)" in err
    assert {path: path.read_bytes() for path in (tmp_path / ".hydra").iterdir()} == before
    assert train(*BARE, "trainer.max_epochs=1", "logger=tensorboard", f"hydra.run.dir={tmp_path}")[0] == 0


def test_an_unfinished_run_goes_on_as_what_it_was_or_not_at_all(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(DownstreamRegressor, "score", stopped)
        code, out, _ = train(*MEASURED, f"hydra.run.dir={tmp_path}")
    assert code == 143 and f"spectangle train resume={tmp_path}" in out
    path = tmp_path / ".hydra" / "config.yaml"  # as a version wrote it that knew less to measure
    config = OmegaConf.load(path)
    config.callbacks.regressor.pop("paper_on_gpu")
    OmegaConf.save(config, path)
    for change in ("model.latent=7", "lambdas=second_pair", "data.batch_size=64", "optimizer.lr=0.1"):
        code, _, err = train(f"resume={tmp_path}", change)
        assert code == 1 and "holds another experiment" in err and "Traceback" not in err
    measured_otherwise = ["callbacks.figures=null", "+probes.gpu_packs_without=[networks]"]
    code, said, err = train(f"resume={tmp_path}", "trainer.max_epochs=4", *measured_otherwise)
    assert code == 0 and "trainer.max_epochs (was " in said and ", is 4)" in said, err
    assert len(Run(tmp_path).history) == 4 and Run(tmp_path).config["trainer"]["max_epochs"] == 4
    starts = Run(tmp_path).manifest["starts"]
    assert len(starts) == 2 and "trainer.max_epochs=4" in starts[1]["command"]


def stopped(*_, **__):
    raise Stopped(signal.SIGTERM)


def test_a_run_that_is_alive_is_left_alone(train, toy_survey, tmp_path):
    run = tmp_path / "run"
    first = start(*BARE, f"data.path={toy_survey}", "trainer.max_epochs=3000", f"hydra.run.dir={run}", cwd=tmp_path)
    wait_for(lambda: Run(run, must_exist=False).history, first)
    code, _, err = train(f"resume={run}")
    assert code == 1 and f"is being trained by process {first.pid} on" in err
    first.send_signal(signal.SIGTERM)
    output = first.communicate(timeout=60)[0]
    assert first.returncode == 143 and "stopped; go on with" in output
    assert not (run / "metrics.json").exists()


def test_a_start_that_is_refused_leaves_the_folder_of_another(train, toy_survey, tmp_path):
    """Which has just begun: there is nothing in it yet but what every start writes."""
    run = tmp_path / "run"
    with owned(run):
        (run / ".hydra").mkdir()
        code, _, err = train(*BARE, f"data.path={toy_survey}", f"hydra.run.dir={run}")
        assert code == 1 and "is being trained by process" in err
        assert (run / OWNER).is_file() and (run / ".hydra").is_dir()
    other = tmp_path / "other"
    code, _, err = train(*BARE, f"data.path={toy_survey}", "data.labels=[age]", f"hydra.run.dir={other}")
    assert code == 1 and "has no label 'age'" in err and not other.exists()


def test_a_start_that_is_refused_keeps_what_was_there(train, toy_survey, tmp_path):
    """An earlier start that was stopped before it had a manifest: its overrides say how it goes on."""
    run = tmp_path / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "overrides.yaml").write_text("[]")
    code, _, err = train(*BARE, f"data.path={toy_survey}", "data.labels=[age]", f"hydra.run.dir={run}")
    assert code == 1 and "has no label 'age'" in err and (run / ".hydra" / "overrides.yaml").is_file()


def test_a_folder_that_was_deleted_while_it_trained_gets_nothing_more(tmp_path):
    folder = tmp_path / "run"
    with owned(folder):
        shutil.rmtree(folder)
        with pytest.raises(SpectangleError, match="was deleted or moved while"):
            Run(folder, must_exist=False).write_metrics({"a": 1.0})
    assert not (folder / "metrics.json").exists()


def test_who_was_replaced_writes_nothing_more(tmp_path):
    with owned(tmp_path):
        run = Run(tmp_path, must_exist=False)
        run.write_metrics({"a": 1.0})
        (tmp_path / OWNER).write_text(json.dumps({"token": "another", "pid": 1, "host": "elsewhere", "since": "now"}))
        with pytest.raises(Superseded, match="process 1 on elsewhere"):
            run.write_metrics({"a": 2.0})
        assert run.metrics == {"a": 1.0}
    check_owner(tmp_path)


def test_who_holds_a_folder_is_named_at_once_and_gives_it_back(tmp_path):
    """Also when its run fails; an owner's file that is just being written says nothing against anybody."""
    begin = time.monotonic()
    with pytest.raises(KeyError), owned(tmp_path):
        with pytest.raises(SpectangleError, match=f"is being trained by process {os.getpid()} on"), owned(tmp_path):
            pass
        check_owner(tmp_path)  # who was refused took nothing
        (tmp_path / OWNER).write_text('{"tok')
        check_owner(tmp_path)
        raise KeyError
    (tmp_path / OWNER).unlink()
    check_owner(tmp_path)
    with owned(tmp_path):
        check_owner(tmp_path)
    assert time.monotonic() - begin < 5


def test_a_disk_that_is_full_leaves_no_lock_behind(tmp_path, monkeypatch):
    """Whoever makes room and starts again in the same process was told that this very process trains there."""

    def full(*_):
        raise SpectangleError("free some space")

    with monkeypatch.context() as patched:
        patched.setattr("spectangle.runs.ownership.write_beside", full)
        with pytest.raises(SpectangleError, match="free some space") as kept, owned(tmp_path):
            pass
    check_owner(tmp_path)
    with owned(tmp_path):
        assert kept.tb and (tmp_path / OWNER).is_file()  # a notebook keeps what was raised, and the lock with it


def test_a_process_that_is_about_to_end_is_waited_for(tmp_path, caplog):
    """The study has killed it: it frees its lock in a moment, and nobody is robbed."""
    held = FileLock(tmp_path / ".lock", thread_local=False)
    held.acquire()
    ending = threading.Timer(0.3, held.release)
    ending.start()
    with owned(tmp_path, replace=True):
        assert not held.is_locked and "gives no sign of life" not in caplog.text
    ending.join()


def test_a_process_that_gives_no_sign_of_life_is_replaced(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("spectangle.runs.ownership.PATIENCE_S", 0.1)
    with FileLock(tmp_path / ".lock"):
        (tmp_path / OWNER).write_text(json.dumps({"token": "old", "pid": 1, "host": "elsewhere", "since": "now"}))
        with owned(tmp_path, replace=True):
            assert "taken from process 1 on elsewhere" in caplog.text
            check_owner(tmp_path)


def test_a_folder_has_one_owner_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with owned(Path("run")):
        (tmp_path / "run" / OWNER).write_text(json.dumps({"token": "another", "pid": 1, "host": "a", "since": "b"}))
        for name in ("run", "../" + tmp_path.name + "/run", tmp_path / "run"):
            with pytest.raises(Superseded):
                check_owner(Path(name))


def test_a_file_system_without_locks_costs_a_word(tmp_path, monkeypatch, caplog):
    def no_locks(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", no_locks)
    with owned(tmp_path):
        assert "knows no locks" in caplog.text
    with pytest.raises(SpectangleError, match="could not be made"), owned(tmp_path / OWNER / "below"):
        pass


# ---------------------------------------------------------------------- the window after the last epoch


@pytest.fixture(scope="module")
def calm(toy_survey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calm")
    run_train(*MEASURED, f"data.path={toy_survey}", f"hydra.run.dir={folder}")
    return folder


@pytest.mark.parametrize("lost", ["nothing", "row", "history", "place"])
def test_a_run_stopped_after_its_last_epoch_is_finished_by_a_resume(train, calm, tmp_path, monkeypatch, lost):
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(DownstreamRegressor, "score", stopped)
        assert train(*MEASURED, f"hydra.run.dir={folder}")[0] == 143
    if lost == "row":
        lines = (folder / "metrics.csv").read_text().splitlines(keepends=True)
        (folder / "metrics.csv").write_text("".join(lines[:-1]))
    elif lost == "history":
        (folder / "metrics.csv").write_text('epoch,val/rec\n0,"0.')
    elif lost == "place":
        folder = folder.rename(tmp_path / "moved")
    code, out, err = train(f"resume={folder}")
    assert code == 0, err
    assert "nan" not in out
    wanted = {
        key: value
        for key, value in comparable(calm).items()
        if not key.startswith("train/") or lost in ("nothing", "place")
    }
    assert {key: comparable(folder).get(key) for key in wanted} == wanted


@pytest.mark.parametrize("batch_size", [2, 7, 41])
def test_a_last_batch_of_one_star_does_not_cost_the_validation(train, tmp_path, batch_size):
    """288 training stars: 288 % 7 = 1, 288 % 41 = 1, 288 % 2 = 0."""
    code, _, err = train(*BARE, "trainer.max_epochs=2", f"data.batch_size={batch_size}", f"hydra.run.dir={tmp_path}")
    assert code == 0, err
    assert len(Run(tmp_path).history) == 2 and "val/reconstruction" in Run(tmp_path).metrics


# ---------------------------------------------------------------------- which checkpoint is which


def test_the_last_checkpoint_is_the_last_epoch_and_the_best_one_the_best(train, tmp_path):
    options = [
        "trainer.max_epochs=5",
        "callbacks.checkpoint.monitor=val/reconstruction",
        "callbacks.checkpoint.mode=max",
        "callbacks.checkpoint.save_top_k=3",
    ]
    code, _, err = train(*BARE, *options, f"hydra.run.dir={tmp_path}")
    assert code == 0, err
    run = Run(tmp_path)
    errors = [row["val/reconstruction"] for row in run.history]
    epochs = {
        name: torch.load(tmp_path / f"checkpoints/{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")
    }
    assert epochs == {"best": errors.index(max(errors)), "last": 4} and run.metrics["epoch/best"] == epochs["best"]
    assert len(list((tmp_path / "checkpoints").glob("epoch=*.ckpt"))) == 3


def test_a_moved_run_keeps_its_best_epoch(train, tmp_path, monkeypatch):
    options = [
        "trainer.max_epochs=3",
        "callbacks.checkpoint.monitor=val/reconstruction",
        "callbacks.checkpoint.mode=max",
    ]
    assert train(*BARE, *options, f"hydra.run.dir={tmp_path / 'a'}")[0] == 0
    (tmp_path / "a/metrics.json").unlink()
    shutil.move(tmp_path / "a", tmp_path / "b")
    code, _, err = train(f"resume={tmp_path / 'b'}", "trainer.max_epochs=5")
    assert code == 0, err
    assert Run(tmp_path / "b").metrics["epoch/best"] == 0 and not (tmp_path / "a").exists()
