"""Toy surveys and runs: tiny, quick, and hard enough that a wrong answer shows."""

from spectangle.threads import let_threads_sleep

let_threads_sleep()  # before torch is loaded: tests share the cores with the processes that they start

# ruff: noqa: E402
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import run_train
from filelock import FileLock

from spectangle.survey.writer import SurveyWriter

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of pytest-xdist share the cores
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_BASE_URL", "http://127.0.0.1:9")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its crash reports go to another host

LONGEST = (  # files that start first
    *("slurm", "sweep_faults", "report", "sweeper", "tracking", "any_labels", "packed_sweeps", "dashboards"),
    *("train", "generate"),
    *("attributes", "quality_flags", "table1", "missing_labels"),
)
UNITS = {"teff": "K", "logg": "dex", "m_h": "dex", "alpha_fe": "dex"}
CENTRE = np.array([5100.0, 3.0, -0.1, 0.05])
SPREAD = np.array([700.0, 1.0, 0.3, 0.1])


def write_toy_survey(
    path: Path, n: int = 400, n_pixels: int = 40, units: dict[str, str] = UNITS, seed: int = 0
) -> Path:
    """Write stars whose every pixel is a smooth mixture of the labels, at S/N 100."""
    random = np.random.default_rng(seed)
    k = len(units)
    scaled = random.normal(size=(n, k))
    labels = scaled * np.resize(SPREAD, k) + np.resize(CENTRE, k)
    response = random.normal(size=(k, n_pixels)) / k
    flux = 0.8 + 0.05 * np.tanh(scaled @ response) + 0.008 * random.normal(size=(n, n_pixels))
    ids = 4_000_000_000_000_000_001 + random.permutation(n).astype(np.int64)
    with SurveyWriter(
        path, 846 + 0.03 * np.arange(n_pixels), units, origin="toy", release="1", created_by="tests"
    ) as writer:
        writer.append(
            ids, flux, {name: labels[:, i] for i, name in enumerate(units)}, flux_error=np.full_like(flux, 0.008)
        )
    return path


# files whose tests start processes or train, and what marks such tests in others
PROCESSES = (
    *("slurm", "sweep_faults", "report", "sweeper", "tracking", "train", "dashboards", "wheel", "streams", "entry"),
    *("shared_folders", "submission", "prepare", "threads", "explorer", "malformed", "archives_download", "miles"),
    *("any_labels", "packed_sweeps", "processes", "extras", "extending"),
)
TRAINED = {"toy_runs", "stochastic_run", "exported", "run", "model"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start processes, which ``make quick`` leaves out; start the files first that take longest: the
    last one decides when all are done.
    """
    for item in items:
        if item.path.stem.removeprefix("test_") in PROCESSES or TRAINED & set(getattr(item, "fixturenames", ())):
            item.add_marker("process")

    def place(item: pytest.Item) -> int:
        name = item.path.stem.removeprefix("test_")
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory):
    """A folder that the first worker of pytest-xdist makes, and that all others only read."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place  # that of the workers is below it

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        with FileLock(place / f"{name}.lock"):
            if not (place / f"{name}.made").exists():
                make(place / name)
                (place / f"{name}.made").touch()
        return place / name

    return folder


@pytest.fixture(scope="session")
def toy_survey(shared) -> Path:
    def make(folder: Path) -> None:
        folder.mkdir()
        write_toy_survey(folder / "toy.h5")

    return shared("survey", make) / "toy.h5"


TINY = ["data=survey", "model=tiny", "trainer.max_epochs=8", "threads=1", "callbacks.figures=null"]


@pytest.fixture(scope="session")
def toy_runs(toy_survey: Path, shared, own_cache, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three finished runs on the toy survey: first pair with two seeds, and a pure latent. A worker's own copies: what
    is derived from a run is kept in it.
    """

    def make(folder: Path) -> None:
        sweep = ["lambdas=first_pair,none", "seed=0,1", "hydra.sweep.subdir=${hydra.job.num}"]
        run_train("-m", *TINY, f"data.path={toy_survey}", "callbacks.probes=null", *sweep, f"hydra.sweep.dir={folder}")

    folder = shutil.copytree(shared("runs", make), tmp_path_factory.mktemp("runs") / "runs")
    return [folder / "0", folder / "1", folder / "2"]


@pytest.fixture(scope="session")
def stochastic_run(toy_survey: Path, own_cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose latent is a sample: mean plus noise of a learned size."""
    folder = tmp_path_factory.mktemp("stochastic") / "run"
    options = ["model.latent_rate=1.0", "lambdas=first_pair", f"hydra.run.dir={folder}"]
    run_train(*TINY, f"data.path={toy_survey}", "callbacks.probes=null", *options)
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep caches of tests out of the user's."""
    os.environ["SPECTANGLE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
