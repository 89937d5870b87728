"""A survey has the labels that it has: every command works on labels that nobody named before, on one, and on ten."""

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table
from commands import Command
from PIL import Image

from spectangle.runs.folder import Run
from spectangle.survey.file import Survey
from spectangle.survey.writer import SurveyWriter

UNITS = {"vsini": "km/s", "c_fe": "dex", "age": "Gyr"}
MANY = {"teff": "K", "logg": "dex", "fe_h": "dex", "vsini": "km/s", "v_mic": "km/s", "c_fe": "dex", "mg_fe": "dex"}
MANY |= {"age": "Gyr", "mass": "solMass", "radius": "solRad"}
CENTRE = {"teff": 5100.0, "logg": 3.0, "vsini": 20.0, "age": 5.0}
SPREAD = {"teff": 700.0, "logg": 1.0, "vsini": 8.0, "age": 2.0}
TINY = ["data=survey", "model=tiny", "threads=1", "probes=quick", "regressor.epochs=5", "trainer.max_epochs=2"]
TINY += ["data.batch_size=64", "callbacks.probes.small_below=0", "callbacks.probes.bootstrap=10"]
ALWAYS = {"predicted", "information", "reconstruction", "residual_snr", "tsne"}


def write(path: Path, units: dict[str, str], n: int = 500, pixels: int = 40) -> Path:
    """Write spectra that are linear in the labels, with S/N of their own."""
    random = np.random.default_rng(0)
    scaled = random.normal(size=(n, len(units)))
    flux = 0.8 + 0.05 * scaled @ random.normal(size=(len(units), pixels)) / np.sqrt(len(units))
    flux += 0.006 * random.normal(size=flux.shape)
    labels = {
        name: CENTRE.get(name, 0.0) + SPREAD.get(name, 0.2) * column
        for name, column in zip(units, scaled.T, strict=True)
    }
    with SurveyWriter(
        path, 846 + 0.4 * np.arange(pixels), units, origin="toy", release="1", created_by="tests"
    ) as writer:
        ids = np.arange(1, n + 1)
        writer.append(
            ids, flux, labels, flux_error=np.full_like(flux, 0.006), columns={"snr": random.uniform(20, 200, n)}
        )
    return path


@pytest.fixture(scope="module")
def made(own_cache, tmp_path_factory):
    """Trained runs by name, and what was printed: a pair and a pure latent of three labels, one label, ten."""
    folder = tmp_path_factory.mktemp("any")
    choices = {
        "table/pair": (UNITS, ["lambdas=none", "lambdas.vsini=-1", "lambdas.others=1", "callbacks.figures=null"]),
        "table/pure": (UNITS, ["lambdas=none", "callbacks.figures=null"]),
        "one": ({"vsini": "km/s"}, ["lambdas=disentangle_all"]),
        "ten": (MANY, ["lambdas=first_pair", "callbacks.probes=null"]),
    }
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, (units, words) in choices.items():
            survey = folder / f"{len(units)}.h5"
            if not survey.exists():
                write(survey, units)
            command = Command(patch, Silent())  # pyright: ignore[reportArgumentType]
            command("train", *TINY, f"data.path={survey}", f"hydra.run.dir={folder / name}", *words)
            printed[name] = (folder / name / "train.log").read_text()
    return folder, printed


class Silent:
    """Stand in for capsys, which a fixture of a module cannot have."""

    def readouterr(self) -> tuple[str, str]:
        return "", ""


@pytest.fixture
def command(monkeypatch, capsys):
    return Command(monkeypatch, capsys)


def drawn(folder: Path) -> set[str]:
    """Names of the pictures in a folder, each of which shows something."""
    found = list(folder.glob("*.png"))
    for path in found:
        with Image.open(path) as picture:
            assert (np.asarray(picture.convert("L")) < 200).mean() > 0.003, f"{path} is empty"
    return {path.stem for path in found}


@pytest.mark.parametrize(("name", "extra"), [("one", set()), ("ten", {"kiel_chemical"})])
def test_a_run_has_every_figure_of_its_labels(made, name, extra):
    folder, printed = made
    assert drawn(folder / name / "figures") == ALWAYS | extra
    assert "could not be drawn" not in printed[name]


def test_the_run_says_what_happens_to_each_label(made):
    folder, printed = made
    assert "vsini entangled (-1), c_fe disentangled (+1), age disentangled (+1)" in printed["table/pair"]
    run = Run(folder / "table/pair")
    assert run.units == UNITS and run.config["lambdas"] == {"vsini": -1, "c_fe": 1, "age": 1}
    assert {"excess/c_fe", "excess/age", "test/latent/vsini/mae"} <= set(run.metrics)
    ten = Run(folder / "ten").config["lambdas"]
    assert [name for name, value in ten.items() if value < 0] == ["teff", "logg"] and len(ten) == 10


def test_the_report_has_the_tables_and_figures_of_the_labels(made, command):
    folder, _ = made
    code, printed, errors = command("report", "kind=table1", f"sweep={folder / 'table'}")
    assert code == 0, errors
    assert "vsini (km/s)" in printed and "age (Gyr)" in printed and "Keep vsini; lose c_fe, age" in printed
    assert "teff" not in printed and "paper" not in printed.lower()
    figures = {"survey_labels", "information", "reconstruction", "residual_snr", "frontier", "predicted_pure"}
    pair = "keep_vsini_lose_c_fe_age"
    assert drawn(folder / "table/table1/figures") == figures | {f"predicted_{pair}", f"tsne_{pair}"}


def test_spectra_are_generated_with_any_label(made, command, tmp_path):
    folder, _ = made
    out = tmp_path / "new.h5"
    code, _, errors = command("generate", f"run={folder / 'table/pair'}", "set.c_fe=0.1", "set.age=2:8:3", f"out={out}")
    assert code == 0, errors
    with Survey(out) as survey:
        assert set(survey.label("age")) == {2, 5, 8} and survey.unit("age") == "Gyr"
    assert drawn(tmp_path) == {"new"}
    code, _, errors = command("generate", f"run={folder / 'one'}", "set.vsini=20", f"out={tmp_path / 'one.h5'}")
    assert code == 0, errors
    code, _, errors = command("generate", f"run={folder / 'one'}", "set.teff=5000", f"out={tmp_path / 'no.h5'}")
    assert code == 1 and "set.teff: the run does not know this label; its labels are vsini." in errors


@pytest.mark.parametrize("name", ["table/pair", "one", "ten"])
def test_a_run_is_checked_read_exported_and_explored(made, command, tmp_path, name):
    folder, _ = made
    run, units = Run(folder / name), Run(folder / name).units
    code, printed, errors = command("generate", f"run={run.path}", "check=true")
    assert code == 0 and all(f"\u2502 {label} " in printed for label in units) and "\u2026" not in printed, errors
    code, _, errors = command("predict", f"run={run.path}", f"spectra={run.survey_path}", f"out={tmp_path / 's.ecsv'}")
    assert code == 0, errors
    table = Table.read(tmp_path / "s.ecsv")
    assert all(np.isfinite(table[label]).all() and u.Unit(unit) == table[label].unit for label, unit in units.items())
    code, _, errors = command("export", f"run={run.path}", f"out={tmp_path / 'model'}", "onnx=false")
    assert code == 0, errors
    card = (tmp_path / "model" / "README.md").read_text()
    assert all(f"| {label} [{unit}] | latent |" in card for label, unit in units.items())
    code, printed, errors = command("explore", f"run={run.path}", f"save={tmp_path / 'page.html'}")
    assert code == 0 and "works from disk" in printed, errors


def test_a_pair_is_refused_where_its_labels_are_not(made, command, tmp_path):
    folder, _ = made
    words = [*TINY, f"data.path={folder / '3.h5'}", f"hydra.run.dir={tmp_path}"]
    code, _, errors = command("train", *words, "lambdas=first_pair")
    assert code == 1 and "lambdas names teff, logg, but the survey's labels are vsini, c_fe, age." in errors
    assert "lambdas=none lambdas.vsini=-1 lambdas.others=1" in errors
