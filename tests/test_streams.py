"""Output never kills work, and a run is resumed from wherever it was started."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import ROOT, Command
from hydra.core.override_parser.overrides_parser import OverridesParser
from sweep_tools import command, environment, records, write_sweep

from spectangle.configs.arguments import quoted, resume_arguments, sweep_arguments
from spectangle.errors import SpectangleError
from spectangle.evaluation.downstream import DownstreamRegressor
from spectangle.runs.folder import Run
from spectangle.signals import Stopped
from spectangle.streams import Unbreakable

BARE = [
    "data=survey",
    "model=tiny",
    "threads=1",
    "trainer.max_epochs=3",
    "callbacks.regressor=null",
    "callbacks.probes=null",
    "callbacks.figures=null",
]


def line(survey: Path, folder: Path) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *BARE, f"data.path={survey}", f"hydra.run.dir={folder}"]


@pytest.mark.parametrize("fate", [">&- 2>&-", "| head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", ">/dev/full 2>&1"])
def test_a_run_outlives_its_output(toy_survey, tmp_path, fate):
    script = " ".join(map(repr, line(toy_survey, tmp_path / "run"))) + " " + fate
    done = subprocess.run(["bash", "-c", script], env=environment(), timeout=120)
    assert done.returncode == 0 and Run(tmp_path / "run").finished


def test_a_run_outlives_its_terminal_and_a_narrow_encoding(toy_survey, tmp_path):
    master, slave = pty.openpty()
    process = subprocess.Popen(
        line(toy_survey, tmp_path / "run"),
        stdout=slave,
        stderr=slave,
        env=environment() | {"PYTHONIOENCODING": "latin-1"},
        start_new_session=True,
    )
    os.close(slave)
    os.read(master, 1)
    os.close(master)
    assert process.wait(timeout=120) == 0 and Run(tmp_path / "run").finished


def test_a_sweep_outlives_its_output(tmp_path):
    folder = write_sweep(tmp_path, params={"x": "choice(0.1, 0.2)"})
    script = " ".join(map(repr, command(tmp_path))) + " >&- 2>&-"
    assert subprocess.run(["bash", "-c", script], env=environment(), cwd=tmp_path, timeout=120).returncode == 0
    assert {record["state"] for record in records(folder).values()} == {"complete"} and (
        folder / "report.html"
    ).is_file()
    done = subprocess.run(
        command(tmp_path),
        env=environment() | {"PYTHONIOENCODING": "latin-1"},
        cwd=tmp_path,
        timeout=120,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_broken_stream_goes_nowhere():
    class Broken:
        encoding = "utf-8"

        def write(self, text):
            raise OSError(5, "Input/output error")

        flush = write

        def fileno(self):
            raise ValueError("no file")

    stream = Unbreakable(Broken())
    assert stream.write("one") == 3 and stream.write("two") == 3 and not stream.isatty()


# ---------------------------------------------------------------------- paths and resume


@pytest.mark.parametrize("key", ["run", "compare", "survey", "save", "archive.labels_table", "labels.table"])
def test_the_folder_of_a_seed_needs_no_quotes(key):
    """``compare=runs/table1/c1/seed=0``: Hydra would read two equal signs."""
    parser = OverridesParser.create()
    (argument,) = sweep_arguments([f"{key}=runs/c1/seed=0"])
    assert parser.parse_override(argument).value() == "runs/c1/seed=0"
    for untouched in (
        "x=choice(a/b, c/d)",
        "runs=[a,b]",
        "run=['a/seed=0',b]",
        "model.latent=5,10",
        "lambdas=first_pair",
    ):
        assert sweep_arguments([untouched]) == [untouched]


def test_a_list_of_runs_with_seeds_needs_no_quotes():
    (argument,) = sweep_arguments(["run=[runs/c1/seed=0, runs/c1/seed=1,plain]"])
    parsed = OverridesParser.create().parse_override(argument).value()
    assert [str(getattr(path, "text", path)) for path in parsed] == ["runs/c1/seed=0", "runs/c1/seed=1", "plain"]


@pytest.mark.parametrize("name", ["plain", "a (b)", "a,b", "a b", "run[v2]", "it's", "k=v"])
def test_a_folder_of_any_name_is_one_value(name):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    read = OverridesParser.create().parse_override(f"hydra.run.dir={quoted('/x/' + name)}").value()
    assert getattr(read, "text", read) == f"/x/{name}"
    (argument,) = sweep_arguments([f"sweep.dir=/x/{name}"])
    assert not OverridesParser.create().parse_override(argument).is_sweep_override()


def test_a_folder_of_any_name_can_be_trained_in_resumed_and_swept(toy_survey, tmp_path, monkeypatch, capsys):
    folder, call = tmp_path / "a (b), [v2]", Command(monkeypatch, capsys)
    code, _, err = call("train", *BARE, f"data.path={toy_survey}", f"hydra.run.dir={folder}")
    assert code == 0, err
    code, out, err = call("train", f"resume={folder}")
    assert code == 0 and f"{folder} is finished already" in out, err
    write_sweep(tmp_path, params={"x": "choice('[/x/y]', '[b]')"})
    done = subprocess.run(
        command(tmp_path, f"sweep.dir={folder}/s"),
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stdout + done.stderr and str(folder / "s") in done.stdout + done.stderr


def test_a_run_is_resumed_with_its_configs_and_from_its_folder(toy_survey, tmp_path, monkeypatch, capsys):
    """Started with -cd, hydra.searchpath and a relative path, resumed from somewhere else."""
    start, elsewhere = tmp_path / "start", tmp_path / "elsewhere"
    for folder in (start / "own", start / "more/model", elsewhere):
        folder.mkdir(parents=True)
    (start / "toy.h5").symlink_to(toy_survey)
    (start / "own/mine.yaml").write_text(
        yaml.safe_dump({"defaults": ["config", {"override model": "other"}, "_self_"], "seed": 7})
    )
    (start / "more/model/other.yaml").write_text(
        (ROOT / "conf/model/tiny.yaml").read_text().replace("latent: 4", "latent: 3")
    )
    call = Command(monkeypatch, capsys)
    monkeypatch.chdir(start)
    options = [item for item in BARE if not item.startswith("model")] + ["data.path=toy.h5", "hydra.run.dir=run"]
    options[options.index("callbacks.regressor=null")] = "regressor.epochs=3"
    search = f"hydra.searchpath=[file://{start}/more]"
    with monkeypatch.context() as patched:
        patched.setattr(DownstreamRegressor, "score", interrupted)
        code, _, err = call("train", "-cd", "own", "-cn", "mine", search, *options)
    assert code == 143, err
    monkeypatch.chdir(elsewhere)
    code, _, err = call("train", f"resume={os.path.relpath(start / 'run')}")
    assert code == 0, err
    run = Run(start / "run")
    assert (
        run.finished
        and run.config["seed"] == 7
        and run.config["model"]["latent"] == 3
        and not list(elsewhere.iterdir())
    )


def interrupted(*_, **__):
    raise Stopped(15)


def test_a_run_from_before_missing_labels_goes_on_without_such_stars(tmp_path):
    folder = tmp_path / "run" / ".hydra"
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text("- seed=1\n")
    made = {"runtime": {"cwd": "/nowhere", "config_sources": []}, "job": {"config_name": "config"}}
    (folder / "hydra.yaml").write_text(yaml.safe_dump({"hydra": made | {"overrides": {"hydra": []}}}))
    for config, expected in (("seed: 1\n", True), ("seed: 1\nlabels: {require: []}\n", False)):
        (folder / "config.yaml").write_text(config)
        assert ("labels.require=all" in resume_arguments([f"resume={tmp_path / 'run'}"])) == expected


def test_what_is_no_run_is_not_resumed(tmp_path):
    with pytest.raises(SpectangleError, match="is not a run folder"):
        resume_arguments([f"resume={tmp_path}"])
    assert resume_arguments(["a=1"]) == ["a=1"]
