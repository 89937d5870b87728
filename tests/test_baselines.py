"""Baselines: each keeps and loses what it says, and is judged by the metrics of a run."""

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge

from spectangle.configs.nested import flat
from spectangle.data.module import SpectraDataModule
from spectangle.errors import SpectangleError
from spectangle.metrics import r2
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.reports.table1 import baselines
from spectangle.reports.table1.baselines import (
    Baseline,
    add_baselines,
    baselines_of,
    leace,
    principal_components,
    score,
    supervised_bottleneck,
)
from spectangle.reports.table1.collect import FIRST, PURE, SECOND, SPECTRA, Representation, collect
from spectangle.runs.folder import Run

BASELINES = baselines_of([FIRST, SECOND])


@pytest.fixture(scope="module")
def data(toy_survey) -> SpectraDataModule:
    data = SpectraDataModule(str(toy_survey))
    data.setup()
    return data


def test_principal_components_are_those_of_the_training_stars(data):
    flux = data.train.flux.numpy()
    z = principal_components(flux, 5)(data.test.flux.numpy())
    axes = np.linalg.svd(flux - flux.mean(0), full_matrices=False)[2][:5]
    np.testing.assert_allclose(np.abs(z), np.abs((data.test.flux.numpy() - flux.mean(0)) @ axes.T), atol=1e-4)


def test_the_bottleneck_is_the_kept_labels_as_predicted(data):
    regressor = LinearRegression().fit(data.train.flux.numpy(), data.train.labels.numpy())
    z = supervised_bottleneck(regressor, [0, 1])(data.test.flux.numpy())
    assert z.shape == (len(data.test), 2) and r2(z[:, 0], data.test.labels[:, 0].numpy()) > 0.8


def test_no_linear_probe_survives_leace_and_a_non_linear_one_does():
    pytest.importorskip("concept_erasure")
    random = np.random.default_rng(0)
    label, rest = random.normal(size=4000), random.normal(size=(4000, 3))
    latent = np.c_[label + 0.1 * rest[:, 0], label**2, rest].astype(np.float32)
    z = leace(latent[:3000], label[:3000, None])(latent)
    linear = LinearRegression().fit(z[:3000], label[:3000])
    assert r2(linear.predict(z[3000:]), label[3000:]) < 0.02
    squared = LinearRegression().fit(z[:3000], label[:3000] ** 2)
    assert r2(squared.predict(z[3000:]), label[3000:] ** 2) > 0.9


def test_without_a_decoder_only_the_discriminators_teach(toy_survey):
    data = SpectraDataModule(str(toy_survey))
    data.setup()
    lambdas = dict.fromkeys(data.labels, -1e-3)
    model = DisentanglingAutoencoder(
        data.n_pixels, data.labels, hidden=[16], latent=4, lambdas=lambdas, reconstruction_weight=0.0
    )
    model.calibrate(data.train.flux, data.train.labels)
    data.classify_with(model.adversary.classify)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    L.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    ).fit(model, data)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("decoder."))
    assert not torch.equal(after["encoder.layers.0.weight"], before["encoder.layers.0.weight"])


def test_scores_have_the_paths_of_a_run(data, tmp_path):
    baseline = Baseline(principal_components(data.train.flux.numpy(), 5), data.labels, FIRST)
    metrics = score(baseline, data, Ridge(), {"large": {"ridge": Ridge()}}, tmp_path, 0)
    for path in (
        "test/latent/teff/mae",
        "test/spectra/teff/mae",
        "probe/teff/r2",
        "disentanglement/m_h",
        "floor/m_h",
        "excess/alpha_fe",
    ):
        assert np.isfinite(metrics[path])
    assert "excess/teff" not in metrics and metrics["probe/teff/r2"] > 0.5


def test_baselines_join_the_table_and_are_computed_once(toy_runs, tmp_path, monkeypatch):
    table, runs = collect(toy_runs[0].parent)
    computed = []
    monkeypatch.setattr(
        baselines._Fitted,
        "_computed",
        lambda self, one: computed.append(one.key) or {f"test/latent/{n}/mae": 1.0 for n in table.labels},
    )
    for _ in range(2):
        add_baselines(table, runs, tmp_path, workers=1)
    assert computed == list(BASELINES) * len(runs[PURE])
    assert [one.key for one in table.representations[-len(BASELINES) :]] == list(BASELINES)
    assert (
        "supervised encoder is not in the table" in table.notes[0] and table.mean(BASELINES["pca"], "teff/mae") == 1.0
    )


def test_a_baseline_that_cannot_be_computed_is_a_note(toy_runs, tmp_path, monkeypatch):
    """The others are in the table; a damaged file in the cache is as good as none."""
    table, runs = collect(toy_runs[0].parent)

    def computed(self, one):
        if one.key == "pca":
            raise SpectangleError("the survey is gone.")
        return {f"test/latent/{name}/mae": 1.0 for name in table.labels}

    monkeypatch.setattr(baselines._Fitted, "_computed", computed)
    damaged = baselines._Fitted(runs[PURE][0], tmp_path).path("pca")
    damaged.parent.mkdir()
    damaged.write_text("{")
    add_baselines(table, runs, tmp_path, workers=1)
    assert table.notes[0] == "PCA, 25 components is not in the table: the survey is gone."
    assert BASELINES["pca"] not in table.values and table.mean(BASELINES["pls"], "teff/mae") == 1.0


def test_several_processes_find_what_one_finds(toy_runs, tmp_path, monkeypatch):
    pytest.importorskip("concept_erasure")
    few = {key: BASELINES[key] for key in ("pca", "leace_first")}
    monkeypatch.setattr(baselines, "baselines_of", lambda pairs: few)
    ridge, real = {"large": {"ridge": {"_target_": "sklearn.linear_model.Ridge"}}}, baselines._resolved
    monkeypatch.setattr(baselines, "_resolved", lambda run: real(run) | {"probes": ridge})
    tables = []
    for workers in (1, 2):
        table, runs = collect(toy_runs[0].parent)
        add_baselines(table, {PURE: runs[PURE][:1]}, tmp_path / str(workers), workers)
        tables.append({one.key: table.values[one] for one in few.values()})
    alone, together = ({key: flat(values) for key, values in table.items()} for table in tables)
    assert alone.keys() == together.keys()
    for key, values in alone.items():
        assert values.keys() == together[key].keys() and len(values) > 20
        assert list(values.values()) == pytest.approx(list(together[key].values()), rel=1e-3, abs=1e-4)


def test_baselines_are_those_of_any_pair():
    pair = Representation("keep_age", "Keep age", ("age",), ("fe_h", "vsini"))
    found = baselines_of([pair])
    assert list(found) == ["pca", "pls", "bottleneck_keep_age", "leace_keep_age"]
    assert found["leace_keep_age"].title == "LEACE: pure latent without [Fe/H], vsini"
    assert BASELINES["bottleneck_first"].title == "Supervised bottleneck: T_eff, log g"


def test_baselines_know_labels_and_no_attributes():
    pair = Representation("lose_instrument", "Lose instrument", ("age",), ("instrument",)).of_labels(["age", "fe_h"])
    assert list(baselines_of([pair])) == ["pca", "pls", "bottleneck_lose_instrument"]
    assert Baseline(lambda flux: flux, ["age", "fe_h"], pair).adversary.entangled == [0]


def test_each_baseline_maps_the_stars_of_a_run(toy_runs, tmp_path):
    pytest.importorskip("concept_erasure")
    run = next(Run(path) for path in toy_runs if not any(Run(path).config["lambdas"].values()))
    fitted = baselines._Fitted(run, tmp_path)
    for representation in BASELINES.values():
        z = fitted.baseline(representation).embed_stars(fitted.data.test)
        assert z.shape[0] == len(fitted.data.test) and np.isfinite(z).all()


def test_without_a_pure_latent_there_are_no_baselines(toy_runs, tmp_path):
    table, runs = collect(toy_runs[0].parent)
    with pytest.raises(SpectangleError, match="pure latent"):
        add_baselines(table, {one: members for one, members in runs.items() if one != PURE}, tmp_path)
    assert set(table.values) == {SPECTRA, *(one for one in runs if one != PURE), PURE} and not list(tmp_path.iterdir())
