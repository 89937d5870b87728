"""The wheel, installed apart from the clone: it trains, sweeps and predicts from an empty folder."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from commands import ROOT
from conftest import write_toy_survey

TINY = [
    "data=survey",
    "model=tiny",
    "lambdas=first_pair",
    "trainer.max_epochs=2",
    "threads=1",
    "callbacks.figures=null",
    "callbacks.probes=null",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("spectangle-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The command in a new environment that has the wheel; what it depends on comes from the environment of the
    tests.
    """
    place = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)],
        check=True,
    )
    own = Path(
        subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    (own / "dependencies.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )  # the links in it (an editable install) are not followed
    return place / "bin" / "spectangle"


def call(command: Path, *words: str, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | {
        "OMP_NUM_THREADS": "1"
    }
    done = subprocess.run(
        [str(command), *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_wheel_brings_every_config_and_page(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    for folder in ("conf", "sweeps"):
        assert {
            f"spectangle/share/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / folder).rglob("*.yaml")
        } <= names
    data = [
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.suffix in (".html", ".js", ".css", ".csv", ".npz", ".json")
    ]
    assert data and set(data) <= names


@pytest.mark.slow
def test_it_trains_sweeps_reports_and_predicts_in_an_empty_folder(installed, tmp_path):
    write_toy_survey(tmp_path / "toy.h5")
    assert "predict" in call(installed, "--help", folder=tmp_path)
    out = call(installed, "train", *TINY, "data.path=toy.h5", "hydra.run.dir=run", folder=tmp_path)
    assert f"The run is in {tmp_path}/run" in out and "site-packages" in call(installed, "--where", folder=tmp_path)
    call(
        installed,
        "train",
        "sweep=latent_size",
        "experiment=smoke",
        *TINY,
        "data.path=toy.h5",
        "model.latent=2,4",
        "trial_seeds=[0]",
        "sweep.dir=sweep",
        folder=tmp_path,
    )
    assert "complete" in call(installed, "report", "sweep=sweep", folder=tmp_path)
    call(installed, "predict", "run=run", "spectra=toy.h5", "out=stars.ecsv", folder=tmp_path)
    assert (tmp_path / "stars.ecsv").read_text().count("\n") > 400


def test_a_folder_of_ones_own_sweeps_is_searched_first(installed, tmp_path):
    write_toy_survey(tmp_path / "toy.h5")
    (tmp_path / "mine").mkdir()
    space = "{mode: MULTIRUN, sweeper: {params: {seed: 'choice(0, 1)'}}}"
    head = "defaults: [config, {override hydra/sweeper: spectangle}, _self_]"
    (tmp_path / "mine" / "two.yaml").write_text(f"{head}\nhydra: {space}\n")
    words = ["data=survey", "data.path=toy.h5", "dry_run=true", "sweep.dir=planned"]
    assert "2 configurations" in call(installed, "train", "-cd", "mine", "sweep=two", *words, folder=tmp_path)
    assert "configurations" in call(installed, "train", "-cd", "mine", "sweep=bins", *words, folder=tmp_path)
