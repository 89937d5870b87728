"""export.py: what others get is the same model; and the notebook that shows how to use it."""

import copy
import io
import json
import os
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Command, leftovers, run_train

import spectangle
from spectangle.errors import SpectangleError
from spectangle.evaluation.regressors import small_survey_regressor
from spectangle.export.model_card import model_card
from spectangle.export.onnx import export_onnx
from spectangle.export.package import export
from spectangle.inference.load import load
from spectangle.inference.readout import Readout
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def exported(toy_runs, tmp_path_factory):
    return export(str(toy_runs[0]), str(tmp_path_factory.mktemp("exported") / "model"))


@pytest.fixture
def command(monkeypatch, capsys):
    return Command(monkeypatch, capsys)


def test_the_exported_model_is_the_run_value_by_value(toy_runs, toy_survey: Path, exported: Path):
    theirs, ours = spectangle.load(exported), spectangle.load(toy_runs[0])
    with Survey(toy_survey) as survey:
        flux, error = survey.flux(0, 30), survey.flux_error(0, 30)
    np.testing.assert_array_equal(theirs.encode(flux), ours.encode(flux))
    np.testing.assert_array_equal(theirs.generate(flux, m_h=0.1), ours.generate(flux, m_h=0.1))
    a, b = theirs.predict(flux, error), ours.predict(flux, error)
    assert a.colnames == b.colnames and a.meta["ckpt"] == b.meta["ckpt"]
    for name in a.colnames:
        np.testing.assert_array_equal(np.asarray(a[name]), np.asarray(b[name]))
    assert theirs.units == ours.units and theirs.lambdas == ours.lambdas


def test_another_format_is_refused_with_what_to_do(exported: Path, tmp_path: Path):
    folder = shutil.copytree(exported, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": 2}))
    with pytest.raises(SpectangleError, match="has format 2; this version of spectangle reads 3. Export the run again"):
        spectangle.load(folder)


def test_the_onnx_graph_agrees_and_takes_masked_pixels(toy_survey: Path, exported: Path):
    import onnx
    import onnxruntime

    graph = onnx.load(exported / "model.onnx")  # the table of onnxruntime's versions: 1.8 reads opset 14 and IR 7
    assert (graph.ir_version, [(one.domain, one.version) for one in graph.opset_import]) == (7, [("", 14)])
    assert "onnxruntime 1.8 or later" in (exported / "README.md").read_text()
    model = spectangle.load(exported)
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    with Survey(toy_survey) as survey:
        flux = survey.flux(0, 7)
    flux[2, 5:9] = np.nan
    noise = model.network.draws(None, len(flux))
    latent, labels = session.run(None, {"flux": flux} | ({} if noise is None else {"noise": noise.numpy()}))
    np.testing.assert_allclose(latent, model.encode(flux), atol=1e-5)
    np.testing.assert_allclose(labels[:, 0], model.predict(flux)["teff"], rtol=1e-5)


def test_a_small_regressor_is_written_with_its_machines(toy_runs, tmp_path: Path):
    model, random = spectangle.load(toy_runs[0]), np.random.default_rng(0)
    latents = random.normal(size=(200, len(model.readout.scale)))
    labels = latents[:, : len(model.labels)] * 2 + 0.1 * random.normal(size=(200, len(model.labels)))
    readout = Readout.from_regressor(small_survey_regressor(hidden=(9,), members=1, max_iter=20).fit(latents, labels))
    assert export_onnx(replace(model, readout=readout), tmp_path / "small.onnx") < 1e-5


def test_the_run_of_a_small_survey_agrees_with_double_precision(toy_survey: Path, tmp_path: Path):
    """Its machines are a sum over a thousand stars whose weights cancel: what is rounded there is no disagreement."""
    options = ["experiment=small_survey", "trainer.max_epochs=2", "data=survey", f"data.path={toy_survey}", "threads=1"]
    few = ["callbacks.probes=null", "callbacks.figures=null", "callbacks.regressor.cache=null", "lambdas=first_pair"]
    run_train(*options, *few, f"hydra.run.dir={tmp_path / 'run'}")
    model = load(tmp_path / "run", calibrated=False)
    assert model.readout.parts[0].n_centres > 500
    assert export_onnx(model, tmp_path / "model.onnx") < 2e-6
    latent = torch.randn(200, len(model.readout.scale), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        read, exact = model.readout(latent), copy.deepcopy(model.readout).double()(latent.double())
    assert float(((read - exact) / model.readout.label_scale).abs().max()) < 2e-6


def test_nothing_in_the_folder_needs_pickle_and_the_card_tells_the_numbers(exported: Path, toy_runs):
    plain = exported.parent / "plain"
    plain.touch()
    assert {file.stat().st_mode for file in exported.iterdir()} == {
        plain.stat().st_mode
    }  # as readable for colleagues as the umask says
    assert sorted(file.name for file in exported.iterdir()) == [
        "README.md",
        "config.json",
        "model.onnx",
        "model.safetensors",
    ]
    card, metrics = (exported / "README.md").read_text(), json.loads((toy_runs[0] / "metrics.json").read_text())
    assert f"{metrics['test/latent/teff/mae']:.0f}" in card and "m_h | +1 | disentangled" in card
    assert "nan" not in card.lower().replace("nan = masked", "")
    config = json.loads((exported / "config.json").read_text())
    assert (
        config["network"]["labels"] == ["teff", "logg", "m_h", "alpha_fe"]
        and config["identity"]["run"] == toy_runs[0].name
    )


def test_the_card_tells_the_limit_where_the_run_knows_it(toy_runs):
    model, run = load(toy_runs[0]), Run(toy_runs[0])
    assert "best possible reader" not in model_card(model, run)
    limit = {f"limit/teff/{key}": 61.0 for key in ("mae", "mean", "sigma", "r2")}
    told = replace(model, metrics={**model.metrics, **limit})
    card = model_card(told, run)
    [line] = [line for line in card.splitlines() if line.startswith("| teff [K] | limit")]
    assert " 61 " in line and "The limit is what the best possible reader" in card
    assert "| latent, paper's network |" in card or "paper/latent/teff/mae" not in model.metrics


def test_the_card_has_a_dash_for_what_is_lost_of_a_label_that_the_spectra_do_not_hold(toy_runs):
    model, run = load(toy_runs[0]), Run(toy_runs[0])
    metrics = {key: value for key, value in model.metrics.items() if key != "disentanglement/m_h"}
    card = model_card(replace(model, metrics=metrics | {"probe/m_h/r2": 0.01, "excess/m_h": 0.002}), run)
    assert "| m_h | +1 | disentangled | 0.010 | - | 0.002 |" in card and "R2 below 0.05" in card


def test_the_card_tells_labels_that_few_validation_stars_have(toy_runs):
    model, run = load(toy_runs[0]), Run(toy_runs[0])
    assert "stars that have the label" not in model_card(model, run)
    scores = model.calibration.scores.copy()
    scores[3:, 2] = np.nan
    card = model_card(replace(model, calibration=replace(model.calibration, scores=scores)), run)
    last, n = next(line for line in card.splitlines() if line.startswith("| 0.9 ")).split(" | "), len(scores)
    assert last[3] == "-" and float(last[1]) > 0.5 and "; - where too few validation stars" in card
    assert f"| validation stars that have the label | {n} | {n} | 3 | {n} |" in card


def test_an_exported_model_predicts_on_the_command_line(exported: Path, toy_survey: Path, tmp_path: Path, command):
    code, printed, err = command(
        "predict", f"run={exported}", f"spectra={toy_survey}", f"out={tmp_path / 'stars.fits'}"
    )
    assert code == 0 and "400 stars" in printed, err


def test_what_stands_in_the_way_is_not_overwritten(exported: Path, toy_runs, tmp_path: Path, command):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    code, _, err = command("export", f"run={toy_runs[0]}", f"out={tmp_path / 'mine'}", "overwrite=true")
    assert code == 1 and "is not an exported model" in err and (tmp_path / "mine" / "thesis.tex").is_file()
    code, _, err = command("export", f"run={toy_runs[0]}", f"out={exported}")
    assert code == 1 and "overwrite=true" in err
    code, printed, err = command("export", f"run={toy_runs[0]}", f"out={exported}", "overwrite=true", "onnx=false")
    assert code == 0 and not (exported / "model.onnx").exists() and leftovers(exported.parent) == [], err


def test_a_damaged_export_is_refused(toy_runs, tmp_path: Path):
    folder = export(str(toy_runs[0]), str(tmp_path / "model"), onnx=False)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SpectangleError, match="damaged"):
        spectangle.load(folder)


def test_generate_refuses_a_label_that_the_model_does_not_know(exported: Path):
    with pytest.raises(SpectangleError, match="does not know the label vsini"):
        spectangle.load(exported).generate(np.ones((1, 40)), vsini=3)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(notebook: Path, toy_runs, toy_survey: Path, tmp_path: Path, monkeypatch):
    import matplotlib

    matplotlib.use("agg")
    export(str(toy_runs[0]), str(tmp_path / "exported"), onnx=False)
    os.symlink(toy_survey, tmp_path / "survey.h5")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            with redirect_stdout(io.StringIO()):
                exec(compile("".join(cell["source"]), str(notebook), "exec"), names)
