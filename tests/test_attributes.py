"""Attributes with classes, such as the instrument: kept or lost like a label, probed by balanced accuracy."""

import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from commands import Command
from omegaconf import OmegaConf
from sklearn.linear_model import Ridge

from spectangle.data.load import load_stars
from spectangle.data.module import SpectraDataModule
from spectangle.errors import SpectangleError
from spectangle.evaluation.probes import Probes
from spectangle.inference.load import load
from spectangle.metrics import balanced_accuracy
from spectangle.model.adversary import Adversary
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.model.label_estimator import ridge_filled
from spectangle.model.losses import cross_entropy
from spectangle.model.scaling import LabelBins, LabelScaler
from spectangle.reports.table1.print import print_table1
from spectangle.runs.folder import Run
from spectangle.survey.writer import SurveyWriter


def write_two_instruments(path: Path, n: int = 600, n_pixels: int = 40) -> Path:
    """Write stars with two labels, a fifth of them seen by an instrument that tilts the continuum."""
    random = np.random.default_rng(0)
    scaled, other = random.normal(size=(n, 2)), random.random(n) < 0.2
    flux = 0.8 + 0.05 * np.tanh(scaled @ random.normal(size=(2, n_pixels))) + 0.004 * random.normal(size=(n, n_pixels))
    flux += 0.03 * other[:, None] * np.linspace(-1, 1, n_pixels)
    units = {"teff": "K", "logg": "dex"}
    with SurveyWriter(path, 846 + 0.03 * np.arange(n_pixels), units, "two instruments", "1", "tests") as writer:
        labels = {"teff": 5000 + 700 * scaled[:, 0], "logg": 3 + scaled[:, 1]}
        columns = {
            "instrument": np.where(other, "B", "A"),
            "visit": np.arange(n) % 3,
            "period": random.random(n),
            "site": np.full(n, "one"),
        }
        writer.append(2**60 + np.arange(n), flux, labels, np.full_like(flux, 0.004), columns=columns)
    return path


@pytest.fixture(scope="module")
def survey(tmp_path_factory) -> Path:
    return write_two_instruments(tmp_path_factory.mktemp("attributes") / "two.h5")


def module(path, **options):
    data = SpectraDataModule(str(path), **options)
    data.setup()
    return data


def test_classes_are_read_from_text_and_integers(survey):
    data = module(survey, attributes=["instrument", "visit"])
    assert data.classes == {"instrument": ["A", "B"], "visit": ["0", "1", "2"]}
    assert data.train.attributes[:, 1].tolist() == (data.train.rows % 3).tolist()
    assert 0.1 < float(data.train.attributes[:, 0].mean()) < 0.3
    assert data.train.targets.shape == (len(data.train), 4) and data.labels == ("teff", "logg")


def test_nights_stay_apart_and_what_is_empty_has_no_class(tmp_path):
    path = write_two_instruments(tmp_path / "a.h5", n=400, n_pixels=8)
    with h5py.File(path, "r+") as file:
        file["columns/night"] = np.where(np.arange(400) < 3, np.inf, 20190101.0 + np.arange(400) % 2)
    data = module(path, attributes=["night"])
    assert data.classes == {"night": ["20190101", "20190102"]}
    known = sum(int(torch.isfinite(stars.attributes).sum()) for stars in (data.train, data.validation, data.test))
    assert known == 397


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["teff"], "labels.attributes names teff, which is the name of a label"),
        (["visit", "visit"], "labels.attributes names visit, which is there twice"),
        (["others"], "labels.attributes names others, which means every other label"),
    ],
)
def test_names_that_mean_something_else_are_refused(survey, names, sentence):
    with pytest.raises(SpectangleError, match=sentence):
        module(survey, attributes=names)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("period", "labels.attributes names period, whose values are numbers such as"),
        ("site", "labels.attributes names site, which has 1 classes"),
        ("epoch", "has no column 'epoch'; it has: instrument"),
    ],
)
def test_what_has_no_classes_is_refused(survey, name, sentence):
    with pytest.raises(SpectangleError, match=sentence):
        module(survey, attributes=[name])


def test_the_decoder_is_told_the_class_or_the_shares():
    scaler = LabelScaler(["teff"], attributes={"instrument": 2})
    nan = float("nan")
    scaler.fit(torch.tensor([[1.0, 0], [3.0, 0], [2.0, 0], [2.0, 1], [2.0, nan]]))
    told = scaler(torch.tensor([[2.0, 1.0], [2.0, nan]]))
    assert told[0].tolist() == [0, 0, 1] and told[1].tolist() == pytest.approx([0, 0.75, 0.25])
    assert scaler(torch.tensor([[2.0]]))[0].tolist() == pytest.approx([0, 0.75, 0.25])
    assert scaler.n_outputs == 3


def test_codes_are_bins_as_they_are():
    bins = LabelBins(["teff", "visit"], 10, "quantile", {"visit": 5})
    codes = torch.arange(500) % 5
    bins.fit(torch.stack([torch.randn(500), codes.float()], 1))
    assert bins(torch.stack([torch.zeros(500), codes.float()], 1))[:, 1].tolist() == codes.tolist()
    assert bins.counts == [10, 5]


def test_an_attribute_has_a_discriminator_of_its_classes():
    options = {"entangle_with": "regression", "condition_on": "entangled"}
    adversary = Adversary(["a", "b"], 3, {"a": -1, "b": -1}, {"count": 4}, attributes={"b": 3}, **options)
    assert adversary.n_outputs == [2, 3], "a class is never regressed"
    with pytest.raises(SpectangleError, match="condition_on=residual has no residual of an attribute"):
        Adversary(["a", "b"], 3, {"b": 1}, {"count": 4}, attributes={"b": 3}, condition_on="residual")


def test_chance_is_what_the_labels_that_are_told_imply():
    torch.manual_seed(0)
    kept, code = torch.randn(4000), (torch.arange(4000) % 5 == 0).float()
    known = torch.where(code == 1, torch.nan, kept)  # the other instrument's stars have no label
    adversary = Adversary(["a", "b"], 3, {"a": -1, "b": 1}, {}, attributes={"b": 2}, condition_on="entangled")
    adversary.calibrate(torch.stack([known, code], 1), torch.stack([kept, code], 1))
    assert adversary.chance[1] == pytest.approx(float(adversary.entropy[1]), rel=0.05)


def test_the_cap_of_a_lost_label_knows_the_class_that_is_kept():
    """A label that follows from a kept attribute with four classes: past chance the encoder gains nothing."""
    torch.manual_seed(0)
    code = torch.arange(2000) % 4
    labels = torch.stack([torch.randn(2000), code + 0.05 * torch.randn(2000), code.float()], 1)
    options = {"attributes": {"visit": 4}, "lambdas": {"visit": -1, "m_h": 1}, "bins": {"count": 8}}
    adversary = {"condition_on": "entangled", "objective": "capped"}
    model = DisentanglingAutoencoder(20, ["teff", "m_h"], latent=3, hidden=(8,), adversary=adversary, **options)
    model.calibrate(torch.randn(2000, 20), labels)
    told = model._targets(labels, model._told(labels, torch.randn(2000, 20)))
    priors = model.adversary.priors(told[:, model.adversary.entangled])
    cap = cross_entropy(priors.clamp(min=1e-12).log(), model.adversary.classify(labels).T)
    assert float(cap[1]) == pytest.approx(float(model.adversary.chance[1]), abs=0.05)


def test_a_uniform_objective_bears_labels_that_are_regressed():
    options = {"entangle_with": "regression", "objective": "uniform"}
    adversary = Adversary(["a", "b"], 3, {"a": -1, "b": 1}, {"count": {"a": 30, "b": 10}}, **options)
    labels = torch.randn(300, 2)
    adversary.calibrate(labels, labels)
    questions = adversary.ask(labels, adversary.classify(labels))
    assert torch.isfinite(adversary.penalty(torch.randn(300, 3), questions))


def test_an_attribute_does_not_see_what_stands_for_missing_labels():
    torch.manual_seed(0)
    labels = torch.stack([torch.randn(600), torch.randn(600), (torch.arange(600) % 2).float()], 1)
    names = {"lambdas": {"a": -1, "b": 1, "c": 1}, "bins": {}, "attributes": {"c": 2}, "condition_on": "entangled"}
    for incomplete, seen in ((("b",), [True, True]), (("a",), [True, False])):
        adversary = Adversary(["a", "b", "c"], 3, incomplete=incomplete, **names)
        adversary.calibrate(labels, labels)
        y = labels.clone().requires_grad_()
        classes = adversary.classify(labels)
        losses = adversary.cross_entropy(torch.randn(600, 3), adversary.ask(y, classes))
        gradients = [torch.autograd.grad(losses[i], y, retain_graph=True, allow_unused=True)[0] for i in (1, 2)]
        assert [bool(gradient is not None and gradient[:, 0].any()) for gradient in gradients] == seen
        assert adversary.priors.conditional.tolist() == [False, *seen]


def test_gaps_are_filled_from_the_spectra_before_the_estimator_has_learnt():
    torch.manual_seed(0)
    labels = torch.randn(500, 2)
    flux = labels @ torch.randn(2, 30) + 0.01 * torch.randn(500, 30)
    gaps = labels.clone()
    gaps[:200, 1] = torch.nan
    torch.testing.assert_close(ridge_filled(flux, gaps, [1]), labels, atol=0.05, rtol=0)


def test_a_decoder_of_two_instruments_draws_two_spectra():
    torch.manual_seed(0)
    model = DisentanglingAutoencoder(20, ["teff"], latent=3, hidden=(8,), attributes={"instrument": 2}).eval()
    model.calibrate(torch.randn(50, 20), torch.stack([torch.randn(50), torch.arange(50.0) % 2], 1))
    z = torch.randn(4, 3)
    a, b, unknown = (model.decode(z, torch.tensor([given]).repeat(4, 1)) for given in ([0.0, 0.0], [0.0, 1.0], [0.0]))
    assert not torch.allclose(a, b) and not torch.allclose(a, unknown)


def test_balanced_accuracy_weighs_classes_alike():
    truth = np.array([0] * 90 + [1] * 10)
    assert balanced_accuracy(truth, np.zeros(100, int), 2) == 0.5 and balanced_accuracy(truth, truth, 2) == 1


@pytest.mark.parametrize(("trace", "low", "high"), [(0.0, 0.44, 0.56), (0.4, 0.6, 0.72), (5.0, 0.95, 1.0)])
def test_probes_find_a_class_that_is_there_and_none_that_is_not(tmp_path, trace, low, high):
    data = module(write_two_instruments(tmp_path / "many.h5", n=3000, n_pixels=4), attributes=["instrument"])
    random = np.random.default_rng(0)

    def embed(stars):
        noise = random.normal(size=(len(stars), 4))
        noise[:, 0] += 2 * trace * stars.attributes[:, 0].numpy()
        return noise.astype(np.float32)

    names = SimpleNamespace(entangled=[0], disentangled=[2], joint=False)
    model = SimpleNamespace(
        embed_stars=embed, labels=data.labels, targets=("teff", "logg", "instrument"), adversary=names
    )
    probes = Probes({"ridge": Ridge()}, bootstrap=50)
    scores = probes.score(model, data, data.test, spare=data.validation)  # pyright: ignore
    found = scores["probe/instrument/balanced_accuracy"]
    assert low <= found <= high and scores["probe/instrument/chance"] == 0.5
    assert (
        scores["probe/instrument/balanced_accuracy_low"] <= found <= scores["probe/instrument/balanced_accuracy_high"]
    )
    assert (scores["excess/instrument"] > 0.5) == (trace == 5.0)
    assert scores["largest_excess"] == scores["excess/instrument"]


@pytest.fixture(scope="module")
def runs(survey) -> dict[float, Path]:
    """Runs that keep teff and logg, and keep or lose the instrument."""
    from spectangle.commands.main import main

    found = {}
    for strength in (-1.0, 1.0):
        folder = survey.parent / f"run-{strength:g}"
        words = [
            "data=survey",
            f"data.path={survey}",
            "labels.attributes=[instrument]",
            f"lambdas.instrument={strength}",
        ]
        words += [
            "lambdas.teff=-1",
            "lambdas.logg=-1",
            "model=tiny",
            "model.latent=6",
            "trainer.max_epochs=40",
            "threads=1",
        ]
        words += ["data.batch_size=64", "probes=quick", "callbacks.figures=null", f"hydra.run.dir={folder}"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["spectangle", "train", *words])
            main()
        found[strength] = folder
    return found


@pytest.mark.slow
def test_a_lost_instrument_leaves_the_latent_and_the_labels_stay(runs):
    kept, lost = (json.loads((path / "metrics.json").read_text()) for path in runs.values())
    assert kept["probe/instrument/balanced_accuracy"] > 0.85
    assert lost["probe/instrument/balanced_accuracy"] < 0.7 < lost["reference/instrument/balanced_accuracy"]
    assert lost["probe/teff/r2"] > 0.9 and lost["probe/logg/r2"] > 0.9


@pytest.mark.slow
def test_such_a_run_predicts_and_is_exported(runs, survey, tmp_path, monkeypatch, capsys):
    command = Command(monkeypatch, capsys)
    run = runs[1.0]
    code, out, err = command("predict", f"run={run}", f"spectra={survey}", f"out={tmp_path / 'p.ecsv'}")
    assert code == 0, out + err
    code, out, err = command("export", f"run={run}", f"out={tmp_path / 'model'}", "onnx=false")
    assert code == 0, out + err
    flux = load_stars(Run(run)).test.flux[:5].numpy()
    here, there = (load(path).predict(flux) for path in (run, tmp_path / "model"))
    np.testing.assert_allclose(there["teff"], here["teff"], rtol=1e-6)
    np.testing.assert_allclose(there["chi2"], here["chi2"], rtol=1e-5)


@pytest.mark.slow
def test_its_table_1_is_drawn(runs, tmp_path):
    choices = {"sweep": str(runs[1.0].parent), "output": str(tmp_path), "baselines": False, "survey": None}
    print_table1(OmegaConf.create(choices | {"figures": True, "tsne_stars": 30}))
    assert any(path.stem.startswith("tsne_") for path in (tmp_path / "figures").glob("*.png"))
