"""logger=wandb: real offline .wandb files read back, an outage survived, keys kept out of everything."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT, Command, run_train
from conftest import write_toy_survey
from wandb_server import Server

import spectangle
from spectangle.data.load import load_stars
from spectangle.runs.folder import Run
from spectangle.tracking.connection import choose_mode, reachable
from spectangle.tracking.offline_runs import find, note_synced, sync
from spectangle.tracking.record import probe_rows
from spectangle.tracking.wandb_files import merge, read, records, segments, write_records
from spectangle.tracking.wandb_run import summary_of

LABELS = ("teff", "logg", "m_h", "alpha_fe")
KEY = "0123456789abcdef0123456789abcdef01234567"


def arguments(survey: Path, epochs: int = 3) -> list[str]:
    probes = ["probes=quick", "callbacks.probes.bootstrap=20"]
    small = [
        "data=survey",
        f"data.path={survey}",
        "model=tiny",
        f"trainer.max_epochs={epochs}",
        "threads=1",
        "regressor.epochs=5",
    ]
    return [*small, *probes, "callbacks.figures=null", "logger=wandb", "logger.timeout_s=5"]


@pytest.fixture
def command(monkeypatch, capsys):
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def survey(tmp_path_factory) -> Path:
    return write_toy_survey(tmp_path_factory.mktemp("survey") / "toy.h5", n=160, n_pixels=20)


@pytest.fixture(scope="module")
def offline(survey: Path, tmp_path_factory) -> Path:
    """A plain multirun in one process: two good jobs and one that fails."""
    folder = tmp_path_factory.mktemp("jobs") / "trio"
    jobs = ["model.latent=2,3,-1", "lambdas=first_pair", f"hydra.sweep.dir={folder}"]
    run_train("-m", *arguments(survey, epochs=40), *jobs, code=1)
    return folder


@pytest.fixture
def server(monkeypatch):
    stand_in = Server()
    monkeypatch.setenv("WANDB_BASE_URL", stand_in.url)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    yield stand_in
    stand_in.close()


def test_every_job_of_a_multirun_is_one_run(offline: Path):
    found = [read(segments(offline / name)) for name in "012"]
    assert len({run["run"]["id"] for run in found}) == 3
    assert {run["run"]["group"] for run in found} == {"trio"}
    assert {run["run"]["job_type"] for run in found} == {"train"}
    assert [run["exit"] for run in found] == [0, 0, 1]
    assert found[0]["run"]["tags"] == ["lambdas:first_pair", "model:tiny", "survey:toy"]


def test_a_failed_job_says_why(offline: Path):
    summary = read(segments(offline / "2"))["summary"]
    assert summary["state"] == "failed" and "model.latent is -1" in summary["error"]


def test_the_config_is_the_resolved_one(offline: Path):
    config = read(segments(offline / "1"))["config"]
    assert config["model"]["latent"] == 3 and config["lambdas"]["teff"] == -1 and config["bins"]["count"] == 10
    assert config["choice"]["lambdas"] == "first_pair" and "lambdas" not in config["model"]
    assert "_target_" not in json.dumps(config)


def test_history_is_the_runs_own_by_epoch(offline: Path):
    path = segments(offline / "0")[0]
    assert path.stat().st_size > 2 * 32768
    found, rows = read(path), Run(offline / "0").history
    curves = [row for row in found["history"] if "val/reconstruction" in row]
    assert [row["epoch"] for row in curves] == [row["epoch"] for row in rows] == list(range(40))
    for sent, kept in zip(curves, rows, strict=True):
        assert sent["val/reconstruction"] == pytest.approx(kept["val/reconstruction"], rel=1e-6)
        assert set(kept) <= set(sent)
    for name in set(rows[0]) - {"epoch"}:
        assert found["metrics"][name].step_metric == "epoch"


def test_the_summary_holds_the_best_and_every_final_number(offline: Path):
    summary, run = read(segments(offline / "0"))["summary"], Run(offline / "0")
    values = [row["val/reconstruction"] for row in run.history]
    assert summary["val/reconstruction"]["min"] == pytest.approx(min(values), rel=1e-6)
    assert summary["val/reconstruction"]["last"] == pytest.approx(values[-1], rel=1e-6)
    for name, value in run.metrics.items():
        key = f"best/{name}" if name.startswith(("train/", "val/")) else name
        assert summary[key] == pytest.approx(value, rel=1e-6, nan_ok=True), name
    assert summary["state"] == "finished"


SOURCES = ("spectra", "latent", "paper/spectra", "paper/latent")


def test_final_tables(offline: Path):
    path = segments(offline / "0")[0]
    found, metrics = read(path), Run(offline / "0").metrics
    table = json.loads((path.parent / "files" / found["summary"]["tables/downstream"]["path"]).read_text())
    rows = {(row[0], row[3]): dict(zip(table["columns"], row, strict=True)) for row in table["data"]}
    assert set(rows) == {(label, source) for label in LABELS for source in SOURCES}
    assert (
        rows["logg", "latent"]["mae"] == metrics["test/latent/logg/mae"]
        and rows["teff", "spectra"]["in the latent"] == "entangled"
    )
    probes = json.loads((path.parent / "files" / found["summary"]["tables/probes"]["path"]).read_text())
    assert [row[0] for row in probes["data"]] == list(LABELS)


def test_figures_are_media(survey: Path, tmp_path: Path, command):
    options = [option for option in arguments(survey, epochs=2) if option != "callbacks.figures=null"]
    code, _, errors = command(
        "train", *options, "callbacks.probes=null", "lambdas=first_pair", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert code == 0, errors
    (path,) = segments(tmp_path / "run")
    found = read(path)
    media = {
        key.removeprefix("figures/"): value for key, value in found["summary"].items() if key.startswith("figures/")
    }
    assert {"kiel_chemical", "tsne", "reconstruction", "predicted", "information"} == set(media)
    for name, item in media.items():
        picture = (path.parent / "files" / item["path"]).read_bytes()
        assert (
            item["_type"] == "image-file" and item["width"] > 300 and item["path"] in found["files"]
        )  # W&B sends the files that it names
        assert picture[1:4] == b"PNG" and picture == (tmp_path / "run" / "figures" / f"{name}.png").read_bytes()


def test_lineage_goes_from_the_survey_to_the_model(offline: Path):
    artifacts = {item.type: item for item in read(segments(offline / "0"))["artifacts"] if item.type != "run_table"}
    manifest = Run(offline / "0").manifest
    assert set(artifacts) == {"survey", "record", "model"}
    survey = artifacts["survey"]
    assert survey.use_after_commit and manifest["survey"]["content_hash"] in survey.metadata
    assert survey.name == f"survey-{manifest['survey']['content_hash'][:16]}"
    assert survey.manifest.contents[0].ref.startswith("file://")
    assert artifacts["model"].manifest.contents and not artifacts["model"].use_after_commit
    assert {"manifest.json", "metrics.json"} <= {entry.path for entry in artifacts["record"].manifest.contents}


def test_the_model_artifact_is_the_exported_model(offline: Path, tmp_path: Path):
    (model,) = [item for item in read(segments(offline / "0"))["artifacts"] if item.type == "model"]
    for entry in model.manifest.contents:  # what a download of it would be
        (tmp_path / entry.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(entry.local_path, tmp_path / entry.path)
    assert {"model.safetensors", "config.json", "README.md", "checkpoints/best.ckpt", "regressors/latent.skops"} <= {
        *_names(tmp_path)
    }
    theirs, ours = spectangle.load(tmp_path), spectangle.load(offline / "0")
    flux = load_stars(Run(offline / "0")).test.flux.numpy()
    assert (theirs.encode(flux) == ours.encode(flux)).all()
    assert (
        theirs.calibration is not None
        and (theirs.predict(flux)["teff_uncertainty"] == ours.predict(flux)["teff_uncertainty"]).all()
    )


def test_a_model_that_cannot_be_exported_costs_one_line(survey: Path, tmp_path: Path, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    code, out, errors = command(
        "train", *arguments(survey, epochs=1), "callbacks.probes=null", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert code == 0, errors
    assert (out + errors).count(
        "no exported model: safetensors is missing"
    ) == 1 and "stopped listening" not in out + errors
    found = read(segments(tmp_path / "run"))
    (model,) = [item for item in found["artifacts"] if item.type == "model"]
    assert (
        "checkpoints/best.ckpt" in {entry.path for entry in model.manifest.contents}
        and '"exported":false' in model.metadata
    )
    assert (
        found["exit"] == 0
        and found["summary"]["state"] == "finished"
        and not (tmp_path / "run" / "wandb" / "model").exists()
    )


def test_files_can_be_written_again(offline: Path, tmp_path: Path):
    path = segments(offline / "0")[0]
    write_records(tmp_path / "again.wandb", records(path))
    assert read(tmp_path / "again.wandb")["history"] == read(path)["history"]
    cut = tmp_path / "cut.wandb"
    cut.write_bytes(path.read_bytes()[:50000])
    assert 10 < len(read(cut)["history"]) < 40


def test_a_killed_run_goes_on_as_the_same_run(survey: Path, tmp_path: Path, command, server):
    run = tmp_path / "run"
    line = [
        sys.executable,
        str(ROOT / "train.py"),
        *arguments(survey, epochs=4000),
        "logger.mode=offline",
        f"hydra.run.dir={run}",
    ]
    process = subprocess.Popen(
        line, stdout=subprocess.DEVNULL, env={key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    )
    _wait_for(lambda: len(Run(run, must_exist=False).history) > 5)
    time.sleep(2.5)  # W&B's service writes once a second
    process.send_signal(signal.SIGKILL)
    process.wait()
    trained = len(Run(run).history)
    assert sync(run) == 1  # while the job waits in the queue
    name = next(iter(server.runs))
    assert 4 < len(server.lines(name)) <= trained + 1
    code, _, errors = command("train", f"resume={run}", f"trainer.max_epochs={trained + 5}", "logger.mode=offline")
    assert code == 0, errors
    assert len(segments(run)) == 2 and {read(path)["run"]["id"] for path in segments(run)} == {name}
    whole = read(merge(segments(run), tmp_path / "whole.wandb"))
    assert [row["epoch"] for row in whole["history"] if "train/loss" in row] == list(range(trained + 5))
    assert sync(run) == 1 and sync(run) == 0
    assert list(server.runs) == [name]
    assert [row["epoch"] for row in server.lines(name) if "train/loss" in row] == list(range(trained + 5))
    assert server.ends[name][-1] == 0 and server.summary[name]["error"] == ""


def test_a_job_that_slurm_stops_is_preempted_until_it_goes_on(survey: Path, tmp_path: Path, command, monkeypatch):
    def stop(self, trainer, pl_module):
        raise SystemExit(-1)  # as submitit does near a time limit, after it has asked for another start

    run, quick = tmp_path / "run", ["callbacks.probes=null", "callbacks.regressor=null", "logger.model=false"]
    with monkeypatch.context() as patch:
        patch.setattr("spectangle.training.progress.EpochProgress.on_train_epoch_end", stop)
        code, _, _ = command("train", *arguments(survey), *quick, f"hydra.run.dir={run}")
    (path,) = segments(run)
    stopped = read(path)
    assert (
        code
        and stopped["exit"] == 255
        and stopped["summary"]["state"] == "interrupted"
        and stopped["summary"]["error"] == ""
    )
    assert any(item.WhichOneof("record_type") == "preempting" for item in records(path))
    code, _, errors = command("train", f"resume={run}")
    assert code == 0, errors
    whole = read(merge(segments(run), tmp_path / "whole.wandb"))
    assert whole["exit"] == 0 and whole["summary"]["state"] == "finished"
    assert not any(item.WhichOneof("record_type") == "preempting" for item in records(tmp_path / "whole.wandb"))


def test_sync_sends_all_once_and_in_order(offline: Path, server, command):
    for folder, words in (("", "No folder was given"), (f"sweep={offline / 'nothing'}", "is not a folder")):
        code, _, errors = command("sync", *folder.split())
        assert code == 1 and words in errors
    code, out, _ = command("sync", f"sweep={offline}", "list=true")
    assert code == 0 and "3 runs that W&B does not have" in out and not server.runs
    assert "note" not in out  # all of them ended
    code, out, _ = command("sync", f"run={offline / '1'}", "list=true")
    cells = [cell.strip() for cell in out.splitlines()[-2].strip("│").split("│")]
    assert code == 0 and "1 run that W&B does not have" in " ".join(out.split()) and cells[0] == "1" and all(cells)
    code, out, _ = command("sync", f"sweep={offline}")
    assert code == 0 and out.count("sent ") == 3
    ids = [read(segments(offline / name))["run"]["id"] for name in "012"]
    assert [ids.index(line.split()[-1]) for line in out.splitlines() if line.startswith("sent ")] == [0, 1, 2]
    for name, run in zip("012", ids, strict=True):
        local = read(segments(offline / name))
        assert [row["epoch"] for row in server.lines(run) if "epoch" in row] == [
            row["epoch"] for row in local["history"] if "epoch" in row
        ]
        assert server.runs[run]["groupName"] == "trio" and server.runs[run]["tags"] == local["run"]["tags"]
        assert server.ends[run] == [local["exit"]]
    assert {item["artifactTypeName"] for item in server.artifacts} == {"survey", "record", "model", "run_table"}
    assert any(name.startswith("media/table/tables/downstream") for name in server.uploads)
    before = server.requests
    code, out, _ = command("sync", f"sweep={offline}")
    assert code == 0 and "Everything" in out and server.requests == before
    assert not list(offline.glob("*/wandb/sending"))


def test_a_run_may_be_moved_before_it_is_sent(offline: Path, server, tmp_path: Path):
    moved = shutil.copytree(offline / "0", tmp_path / "moved")
    (moved / "wandb" / "synced.json").unlink(missing_ok=True)
    found = read(merge(segments(moved), tmp_path / "whole.wandb", moved))
    files = [entry.local_path for item in found["artifacts"] for entry in item.manifest.contents if entry.local_path]
    assert len(files) > 10 and all(file.startswith(str(moved)) and Path(file).is_file() for file in files)
    assert sync(moved) == 1 and {item["artifactTypeName"] for item in server.artifacts} == {
        "survey",
        "record",
        "model",
        "run_table",
    }


def test_sync_that_fails_may_be_repeated(offline: Path, server, command, monkeypatch):
    for path in offline.glob("*/wandb/synced.json"):
        path.unlink()
    server.broken = True
    monkeypatch.setattr(
        "spectangle.tracking.offline_runs._run_wandb", lambda paths, timeout_s: "wandb: ERROR the server is on fire"
    )
    code, _, errors = command("sync", f"sweep={offline}")
    assert code == 1 and "3 of 3 runs were not sent" in errors and "on fire" in errors
    assert len(find(offline)) == 3
    for folder in "012":
        note_synced(offline / folder)
    assert not find(offline)


def test_online_runs_arrive_and_need_no_sync(survey: Path, tmp_path: Path, command, server):
    code, out, errors = command("train", *arguments(survey), "logger.mode=auto", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0, errors
    name = next(iter(server.runs))
    assert server.url in out and [row["epoch"] for row in server.lines(name) if "train/loss" in row] == [0, 1, 2]
    assert server.ends[name] == [0] and server.summary[name]["state"] == "finished"
    assert not find(tmp_path)


def test_keys_reach_nothing_that_is_kept(survey: Path, tmp_path: Path, command, server):
    code, out, errors = command("train", *arguments(survey), f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0 and KEY not in out + errors
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 15 and not [path for path in kept if KEY.encode() in path.read_bytes()]


def test_an_outage_at_the_start_makes_the_run_offline(survey: Path, tmp_path: Path, command, server):
    server.broken = True
    code, out, errors = command(
        "train", *arguments(survey), "logger.timeout_s=1", "logger.mode=online", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert code == 0, errors
    assert "W&B is offline" in out and Run(tmp_path / "run").finished
    assert read(merge(segments(tmp_path / "run"), tmp_path / "m.wandb"))["exit"] == 0
    assert len(find(tmp_path)) == 1


@pytest.mark.slow
def test_an_outage_later_does_not_fail_the_run(survey: Path, tmp_path: Path, command, server, monkeypatch):
    from spectangle.tracking.wandb_run import WandbRun

    def begin_and_lose(self, cfg, begin=WandbRun.begin):
        begin(self, cfg)
        server.broken = True

    monkeypatch.setattr(WandbRun, "begin", begin_and_lose)
    start = time.monotonic()
    code, out, errors = command("train", *arguments(survey), "logger.timeout_s=1", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0 and time.monotonic() - start < 60, errors  # W&B alone gives its server 20 s
    assert "W&B does not answer any more" in out and Run(tmp_path / "run").finished
    (left,) = find(tmp_path)
    whole = read(merge(left.files, tmp_path / "whole.wandb"))
    assert (
        whole["exit"] == 0
        and "tables/downstream" in whole["summary"]
        and {"record", "model"} <= {item.type for item in whole["artifacts"]}
    )
    assert [row["epoch"] for row in whole["history"] if "train/loss" in row] == [0, 1, 2]


def test_modes(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", os.devnull)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert choose_mode("offline") == ("offline", "") and "no key" in choose_mode("auto")[1]
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert choose_mode("auto") == ("offline", "W&B is offline: http://127.0.0.1:9 does not answer from here")
    assert choose_mode("online") == ("online", "")
    before = reachable.cache_info().misses
    choose_mode("auto")
    assert reachable.cache_info().misses == before


@pytest.mark.parametrize("mode, words", [("on", "must be one of"), ("online", "wandb login")])
def test_modes_that_cannot_be_are_said(mode: str, words: str, survey: Path, tmp_path: Path, command, monkeypatch):
    monkeypatch.setenv("NETRC", os.devnull)
    monkeypatch.delenv("WANDB_MODE")
    code, _, errors = command("train", *arguments(survey), f"logger.mode={mode}", f"hydra.run.dir={tmp_path}")
    assert code == 1 and words in errors


def test_summaries_know_which_way_is_better():
    assert summary_of("val/reconstruction") == "min,last" and summary_of("val/probe/teff/r2") == "max,last"
    assert (
        summary_of("val/latent/teff/mae") == "min,last" and summary_of("val/discriminator_gain/teff") == "min,max,last"
    )


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.parametrize(("bound", "word"), [(1.0, "upper bound"), (0.0, "measured")])
def test_the_table_of_probes_says_what_its_excess_is(bound, word):
    """Where nobody knows the errors of the kept labels, it is an upper bound; a kept label has none."""
    metrics = {"probe/teff/r2": 0.9, "probe/fe_h/r2": 0.2, "excess/fe_h": 0.03, "excess_is_upper_bound": bound}
    columns, rows = probe_rows(metrics, ["teff", "fe_h"], {"teff": "entangled", "fe_h": "disentangled"})
    assert [row[columns.index("excess is")] for row in rows] == [None, word]
    assert [row[columns.index("lost")] for row in rows] == [None, None]  # nothing to lose in the spectra
