"""Runs with model.conditioning=synthetic: the encoder needs labels, so spectangle predict refuses, and the others take
labels from a survey.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from browser import AVAILABLE, Browser
from commands import Command, leftovers, run_train
from conftest import TINY

import spectangle
from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.explorer import make_bundle, save_page
from spectangle.generation import parents
from spectangle.model.load import load_autoencoder
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey
from spectangle.survey.writer import SurveyWriter


@pytest.fixture(scope="module")
def run(toy_survey: Path, own_cache, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "run"
    options = ["callbacks.probes=null", "model.conditioning=synthetic", "lambdas=first_pair", "trainer.max_epochs=2"]
    run_train(*TINY, f"data.path={toy_survey}", *options, f"hydra.run.dir={folder}")
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    return Command(monkeypatch, capsys)


@pytest.fixture
def unlabelled(tmp_path: Path, toy_survey: Path) -> Path:
    """Three stars of the survey, the second without a teff."""
    with (
        Survey(toy_survey) as survey,
        SurveyWriter(
            tmp_path / "few.h5", survey.wavelength, {n: survey.unit(n) for n in survey.labels}, "t", "1"
        ) as few,
    ):
        labels = {name: survey.label(name)[:3] for name in survey.labels}
        labels["teff"][1] = np.nan
        few.append(survey.source_id[:3], survey.flux(0, 3), labels)
    return tmp_path / "few.h5"


def test_predict_refuses_and_says_why(run: Path, toy_survey: Path, tmp_path: Path, command):
    code, _, err = command("predict", f"run={run}", f"spectra={toy_survey}", f"out={tmp_path / 'stars.ecsv'}")
    assert code == 1 and "model.conditioning=synthetic: its encoder needs the labels that are to be predicted" in err
    assert list(tmp_path.iterdir()) == []


def test_generate_starts_from_test_stars_with_all_labels(run: Path, monkeypatch, caplog):
    data = load_stars(Run(run))
    data.test.labels[:3, 0] = np.nan
    monkeypatch.setattr(parents, "load_stars", lambda *_: data)
    found, n = parents.together(parents.parent_blocks(spectangle.load(run), str(run), None, n_stars=4)), len(data.test)
    assert found.source_id.tolist() == data.test.source_id[3:7].tolist() and np.isfinite(found.labels).all()
    assert f"3 of {n} test stars lack labels" in caplog.text
    with pytest.raises(SpectangleError, match="needs the labels of every star"):
        parents.together(
            parents.parent_blocks(spectangle.load(run), str(run), None, source_id=[int(data.test.source_id[0])])
        )
    data.test.labels[:, 0] = np.nan
    with pytest.raises(SpectangleError, match=f"None of the run's {n} test stars has all labels"):
        parents.together(parents.parent_blocks(spectangle.load(run), str(run), None))


def test_generate_encodes_with_the_labels_of_the_stars(run: Path, tmp_path: Path, command):
    out = tmp_path / "new.h5"
    code, printed, err = command("generate", f"run={run}", "set.m_h=-0.3", f"out={out}", "n_stars=6")
    assert code == 0 and "6 spectra" in printed, err
    network, test = load_autoencoder(Run(run)), load_stars(Run(run)).test
    own, changed = test.labels[:6], test.labels[:6].clone()
    changed[:, 2] = -0.3
    with Survey(out) as survey, torch.no_grad():
        latent = torch.from_numpy(network.embed(test.flux[:6], own, test.source_id[:6]))
        expected = network.decode(latent, changed)
        np.testing.assert_allclose(survey.flux(), expected, atol=1e-6)
    assert leftovers(tmp_path) == []


def test_generate_takes_other_stars_only_with_all_labels(
    run: Path, unlabelled: Path, toy_survey: Path, tmp_path: Path, command
):
    to = [f"run={run}", f"out={tmp_path / 'new.h5'}", "set.m_h=0", "figure=false"]
    code, _, err = command("generate", *to, f"spectra={unlabelled}")
    assert code == 1 and "Give a survey with all labels" in err and not (tmp_path / "new.h5").exists()
    np.savez(tmp_path / "bare.npz", flux=np.ones((2, 40)), wavelength=846 + 0.03 * np.arange(40))
    code, _, err = command("generate", *to, f"spectra={tmp_path / 'bare.npz'}")
    assert code == 1 and "needs the labels of every star" in err
    code, _, err = command("generate", *to, f"spectra={toy_survey}", "n_stars=4")
    assert code == 0, err


def test_the_check_refuses(run: Path, command):
    code, _, err = command("generate", f"run={run}", "check=true")
    assert code == 1 and "model.conditioning=observed" in err


def test_export_leaves_out_what_needs_no_labels(run: Path, toy_survey: Path, tmp_path: Path, command):
    to = [f"run={run}", f"out={tmp_path / 'model'}"]
    code, _, err = command("export", *to)
    assert code == 1 and "onnx=false" in err and list(tmp_path.iterdir()) == []
    code, _, err = command("export", *to, "onnx=false")
    assert code == 0, err
    card = (tmp_path / "model" / "README.md").read_text()
    assert "cannot predict" in card and "model.predict" not in card and "coverage" not in card
    model, ours = spectangle.load(tmp_path / "model"), load_autoencoder(Run(run))
    z, labels = np.zeros((2, 4), np.float32), np.tile(np.array([5000, 3, 0, 0], np.float32), (2, 1))
    with torch.no_grad():
        np.testing.assert_array_equal(
            model.decode(z, labels), ours.decode(torch.from_numpy(z), torch.from_numpy(labels))
        )
    with pytest.raises(SpectangleError, match="cannot read them"):
        model.encode(np.ones((1, 40)))
    code, _, err = command(
        "generate",
        f"run={tmp_path / 'model'}",
        f"spectra={toy_survey}",
        f"out={tmp_path / 'new.h5'}",
        "n_stars=2",
        "figure=false",
    )
    assert code == 0, err


def test_the_explorer_looks_up_stars_with_their_labels(run: Path, unlabelled: Path):
    bundle = make_bundle(str(run), stars=3, map_stars=20)
    data, latent = load_stars(Run(run)), bundle.payload["runs"][0]["latent"]["shape"]
    assert latent == [20, 4]
    assert bundle.look_up(str(data.train.source_id[0]))["id"] == str(data.train.source_id[0])
    with Survey(unlabelled) as survey:
        other = type(bundle)(bundle.models, str(unlabelled), bundle.payload)
        assert other.look_up(str(survey.source_id[0]))
        with pytest.raises(SpectangleError, match="lacks a label"):
            other.look_up(str(survey.source_id[1]))


@pytest.mark.browser
@pytest.mark.skipif(not AVAILABLE, reason="needs chromium and chromedriver")
def test_the_explorer_decodes_like_torch(run: Path, tmp_path: Path):
    bundle = make_bundle(str(run), stars=3, map_stars=20)
    path = save_page(bundle, tmp_path / "explorer.html")
    z, labels = np.array([0.5, -1, 0.2, 1], np.float32), np.array([5000, 3, 0, 0.1], np.float32)
    with Browser() as window:
        window.open(path.as_uri())
        window.wait("document.body.dataset.ready")
        theirs = window.run("return Array.from(Spectangle.decode(...arguments))", 0, z.tolist(), labels.tolist())
        assert window.console() == []
    np.testing.assert_allclose(theirs, bundle.models[0].decode(z[None], labels[None])[0], atol=1e-4)
