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

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from commands import ROOT
from omegaconf import OmegaConf

from spectangle.configs.targets import OWN, own_packages, targets
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey
from spectangle.sweeps.slurm import worker_script

PAGE = (ROOT / "docs" / "extending.md").read_text()
OF_THE_ARCHIVE = re.findall(r"(?m)^    spectangle (.*)$", PAGE.partition("## An archive of your own")[2])
COMMANDS = re.findall(r"(?m)^    python train\.py (.*)$", PAGE)
QUICK = ["trainer.max_epochs=1", "data=survey", "threads=1", "regressor.members=1", "regressor.epochs=1"]
QUICK += ["callbacks.figures=null", "callbacks.regressor.cache=null", "callbacks.regressor.paper=null"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that the page describes."""
    for block, name in re.findall(r"(?ms)^```\w+\n((?:# @package _global_\n)?# (\S+)\n.*?)^```$", PAGE):
        path = tmp_path / name
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


def spectangle(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return run(folder, "-m", "spectangle", *words, **environment)


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


def write_lamost(folder: Path, stars: range) -> list[tuple[int, float, float, float]]:
    """An image a star as the page's source reads it, of every second one with five pixels without a value; obsid,
    teff, logg and feh of each.
    """
    folder.mkdir()
    rows = []
    for number in stars:
        random = np.random.default_rng(number)
        teff, logg, feh = random.uniform((4200, 1, -1), (6800, 4.8, 0.4))
        log = 3.59 + 1e-4 * np.arange(2600)
        angstrom = 10**log / (1 + 1e-4)
        depths = {5175: 0.2 + 0.1 * feh, 4862.7: teff / 2e4, 4300: 0.05 * logg}
        lines = 1 - sum(depth * np.exp(-(((angstrom - at) / 9) ** 2)) for at, depth in depths.items())
        inverse, mask = np.full(len(log), 1 / 20**2), np.zeros(len(log))
        flux = 1000 * (angstrom / 5000) ** (teff / 3000 - 2) * lines + 20 * random.normal(size=len(log))
        if number % 2:  # 4896 to 4900 Angstrom at rest
            inverse[1000:1003], mask[1003:1005], flux[1000:1005] = 0, 4, 5000
        header = fits.Header({"OBSID": number, "COEFF0": 3.59, "COEFF1": 1e-4, "Z": 1e-4})
        image = np.array([flux, inverse, 10**log, mask, mask], np.float32)
        fits.PrimaryHDU(image, header).writeto(folder / f"{number}.fits")
        rows.append((number, teff, logg, feh))
    return rows


def test_the_archive_of_the_page_is_prepared_trained_on_and_predicted(folder):
    """The second folder holds a star of the table, and 8 of no table."""
    rows = write_lamost(folder / "dr10", range(1000, 1070))
    write_lamost(folder / "new", range(1069, 1078))
    Table(rows=rows, names=["obsid", "teff", "logg", "feh"]).write(folder / "stars.csv")
    misspelt = spectangle(folder, "prepare", "-cd", "myconf", "archive=lamots", "folder=dr10")
    assert "archive=lamots does not exist. Did you mean 'lamost'? The options" in misspelt.stderr
    assert [command.split()[0] for command in OF_THE_ARCHIVE] == ["prepare", "train", "prepare", "predict"]
    for command in OF_THE_ARCHIVE:
        word, *words = shlex.split(command)
        quick = [*QUICK, "model=tiny", "callbacks.probes=null"] if word == "train" else []
        done = spectangle(folder, word, *words, *quick, **{OWN: "mylib,lamost"})
        assert done.returncode == 0 and "Warning" not in done.stderr, done.stdout + done.stderr
    with Survey(folder / "lamost.h5") as survey:
        assert len(survey) == 70 and survey.attributes["origin"] == "LAMOST x stars"
        assert set(survey.labels) == {"teff", "logg", "fe_h"}
        flux, wavelength = survey.flux(0, 70), np.asarray(survey.wavelength)
        assert abs(wavelength[np.nanmin(flux[:, :300], axis=0).argmin()] - 430.0) < 1
        masked = ~np.isfinite(flux)
        assert masked[1::2].all(axis=0).any() and not masked[::2].any() and np.nanmax(flux) < 1.5
        assert np.abs(wavelength[masked.any(axis=0)] - 489.8).max() < 0.4
    read = Table.read(folder / "new.ecsv")
    assert read["source_id"].tolist() == list(range(1069, 1078)) and np.isfinite(read["teff"]).all()


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
