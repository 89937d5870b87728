"""Classes of one's own: the files and commands of docs/extending.md, as they are there."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from astropy.table import Table
from commands import ROOT
from omegaconf import OmegaConf

from spectangle.configs.targets import OWN, own_packages, targets
from spectangle.errors import SpectangleError
from spectangle.sweeps.slurm import worker_script

PAGE = (ROOT / "docs" / "extending.md").read_text()
COMMANDS = re.findall(r"(?m)^    python train\.py (.*)$", PAGE)
QUICK = ["trainer.max_epochs=1", "data=survey", "threads=1", "regressor.members=1", "regressor.epochs=1"]
QUICK += ["callbacks.figures=null", "callbacks.regressor.cache=null", "callbacks.regressor.paper=null"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that the page describes."""
    for block in re.findall(r"(?ms)^```\w+\n(# \S+\n.*?)^```$", PAGE):
        path = tmp_path / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    return tmp_path


def train(folder: Path, survey: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    other = any(word.startswith("regressor=") for word in words)
    quick = [word for word in QUICK if not (other and word.startswith("regressor."))]
    probes = [] if "probes=mine" in words else ["callbacks.probes=null"]
    model = [] if "model=mine" in words else ["model=tiny"]
    line = [str(ROOT / "train.py"), *words, *quick, *probes, *model, f"data.path={survey}"]
    return run(folder, *line, **environment)


def spectangle(folder: Path, *words: str) -> subprocess.CompletedProcess:
    return run(folder, "-m", "spectangle", *words)


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """Python in the folder, with the variables of the page."""
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {OWN: "mylib", "PYTHONPATH": paths} | environment
    return subprocess.run([sys.executable, *words], cwd=folder, env=os.environ | own, capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_page_run(command, folder, toy_survey):
    done = train(folder, toy_survey, *shlex.split(command))
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [json.loads(path.read_text()) for path in folder.glob("runs/**/metrics.json")]
    assert len(runs) == (2 if "sweep=sizes" in command else 1)
    if "LatentSize" in command or "sweep=" in command:
        assert all(run["mine/size"] > 0 for run in runs)
    if "probes=mine" in command:
        assert any("squares" in path.read_text() for path in folder.glob("runs/**/train.log"))
    if "model=mine" in command:
        assert "4 numbers for 4 labels" in done.stdout
        (metrics,) = folder.glob("runs/**/metrics.json")
        read = spectangle(folder, "predict", f"run={metrics.parent}", f"spectra={toy_survey}", "out=read.ecsv")
        assert read.returncode == 0 and "is read as a plain" in " ".join((read.stdout + read.stderr).split())


@pytest.mark.parametrize(
    ("named", "target", "sentence"),
    [
        (
            "",
            "mylib.LatentSize",
            "callbacks.mine builds mylib.LatentSize, and a config may only build .* SPECTANGLE_TAR",
        ),
        ("other", "mylib.LatentSize", "say so in the environment: SPECTANGLE_TARGETS=other,mylib "),
        ("mylib", "mylib.Latentsize", r"mylib.Latentsize, which cannot be imported \(there is no such name\)"),
        ("mylib", "os.system", "callbacks.mine builds os.system, and a config may only build"),
        ("my lib", "mylib.LatentSize", "SPECTANGLE_TARGETS names 'my lib'; it must be names of Python packages"),
    ],
)
def test_what_nobody_named_is_refused_before_anything_is_made(named, target, sentence, folder, toy_survey):
    done = train(folder, toy_survey, f"+callbacks.mine={{_target_: {target}}}", **{OWN: named})
    assert done.returncode == 1 and re.search(f"error: .*{sentence}", done.stderr), done.stderr
    assert "Traceback" not in done.stderr and not done.stdout and not list(folder.glob("runs/**/manifest.json"))


def test_a_sweep_refuses_it_once_and_keeps_no_folder(folder, toy_survey):
    """Each run of it failed, one after the other."""
    words = ["-m", "hydra/sweeper=spectangle", "hydra/sweeper/sampler=grid", "seed=choice(0,1,2)", "sweep.dir=refused"]
    words += ["+callbacks.mine={_target_: mylib.LatentSize}"]
    done = train(folder, toy_survey, *words, **{OWN: ""})
    assert done.returncode == 1 and done.stderr.count("SPECTANGLE_TARGETS=mylib") == 1, done.stderr
    assert not (folder / "refused").exists()


def test_a_regressor_that_is_no_network_predicts_and_is_not_exported(folder, toy_survey):
    (folder / "myconf/regressor/forest.yaml").write_text(
        "_target_: sklearn.ensemble.RandomForestRegressor\nn_estimators: 5\n"
    )
    for name in ("forest", "squares"):
        words = ["-cd", "myconf", f"regressor={name}", f"hydra.run.dir={name}"]
        done = train(folder, toy_survey, *words)
        assert done.returncode == 0, done.stderr
        answers = [
            spectangle(folder, word, f"run={name}", *rest)
            for word, *rest in (
                ("predict", f"spectra={toy_survey}", f"out={name}.ecsv"),
                ("export", f"out={name}-exported"),
                ("explore", f"save={name}.html"),
            )
        ]
        assert [answer.returncode for answer in answers] == [0, 1, 1], [answer.stderr for answer in answers]
        assert len(Table.read(folder / f"{name}.ecsv")) == 400
        for answer, word in zip(answers[1:], ("not be exported", "reads labels in the browser"), strict=True):
            assert word in answer.stderr and "can be copied into the model" in answer.stderr
        assert not (folder / f"{name}-exported").exists() and not (folder / f"{name}.html").exists()


def test_named_packages_join_those_of_the_project(monkeypatch):
    monkeypatch.setenv(OWN, "mylib, mine.classes,")
    assert own_packages() == ["mylib", "mine.classes"]
    assert {"mylib.*", "mine.classes.*", "spectangle.*", "sklearn.*"} <= set(targets())
    monkeypatch.setenv(OWN, "mylib.*")
    with pytest.raises(SpectangleError, match=r"names 'mylib\.\*'; it must be names of Python packages"):
        own_packages()


def test_the_script_of_a_workers_job_names_them_too(monkeypatch, tmp_path):
    """It may be submitted again from another shell."""
    monkeypatch.setenv(OWN, "mylib")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "my lib"))
    options: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/hydra/launcher/slurm_workers.yaml"))
    plan: Any = SimpleNamespace(folder=tmp_path)
    lines = worker_script(plan, options, ["train.py"]).splitlines()
    assert "export SPECTANGLE_TARGETS=mylib" in lines and f"export PYTHONPATH='{tmp_path}/my lib'" in lines
