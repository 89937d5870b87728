"""A stochastic latent: one fixed draw for each star, by its source_id, in all that reads spectra; the mean is
nowhere.
"""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table
from sklearn.linear_model import Ridge
from test_explorer import _unpacked
from test_fast_networks import trained_model

import spectangle
from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.evaluation.downstream import DownstreamRegressor
from spectangle.explorer import make_bundle
from spectangle.export.package import export
from spectangle.generation.generate import generate
from spectangle.generation.parents import parent_blocks, together
from spectangle.inference.predict import predict
from spectangle.inference.read import read_spectra
from spectangle.model.load import load_autoencoder
from spectangle.model.networks import NoisyChannel
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey
from spectangle.survey.star_draws import star_normal

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def model(stochastic_run: Path):
    return spectangle.load(stochastic_run)


@pytest.fixture(scope="module")
def stars(stochastic_run: Path):
    return load_stars(Run(stochastic_run)).test


@pytest.fixture(scope="module")
def latent(model, stars) -> np.ndarray:
    """The latents that training, regressor and probes had; they are far from the mean."""
    z = model.network.embed_stars(stars)
    with torch.no_grad():
        assert np.abs(z - model.network.encode(stars.flux).numpy()).mean() > 0.1
    return z


@pytest.fixture(scope="module")
def exported(stochastic_run: Path, tmp_path_factory) -> Path:
    return export(str(stochastic_run), str(tmp_path_factory.mktemp("exported") / "model"))


def written(table: Table) -> np.ndarray:
    return np.column_stack([table[name] for name in table.colnames if name.startswith("z0")])


def test_every_reader_finds_the_latents_that_the_run_was_judged_by(model, stars, latent):
    flux, ids = stars.flux.numpy(), stars.source_id
    np.testing.assert_allclose(model.encode(flux, source_id=ids), latent, **TOLERANCE)
    mae = np.abs(np.asarray(model.predict(flux, source_id=ids)["teff"]) - stars.labels[:, 0].numpy()).mean()
    assert mae == pytest.approx(model.metrics["test/latent/teff/mae"], rel=1e-3)
    expected = model.decode(latent, model.readout(torch.from_numpy(latent)).detach().numpy())
    np.testing.assert_allclose(model.generate(flux, source_id=ids), expected, rtol=1e-4)


def test_the_draw_follows_the_star_through_order_and_batches(model, stars, latent):
    flux, ids = stars.flux.numpy(), stars.source_id
    order = np.random.default_rng(0).permutation(len(ids))
    for batch_size in (7, 1024):
        read = read_spectra([model], flux[order], None, ids[order], batch_size)
        np.testing.assert_allclose(read.latent, latent[order], **TOLERANCE)
    np.testing.assert_allclose(model.encode(flux[5], source_id=ids[5]), latent[5:6], **TOLERANCE)


def test_reading_a_star_twice_averages_nothing_out(model, stars, latent):
    """Another noise in the spectrum, the same in the latent: the mean of many reads is as far from mu as one."""
    flux, n = stars.flux.numpy()[:1], 200
    again = flux + 1e-4 * np.random.default_rng(0).normal(size=(n, flux.shape[1])).astype(np.float32)
    read = model.encode(again, source_id=np.repeat(stars.source_id[:1], n))
    np.testing.assert_allclose(read.mean(0), latent[0], atol=0.01)


def test_without_ids_stars_are_numbered_from_one(model, stars):
    flux = stars.flux.numpy()[:9]
    np.testing.assert_array_equal(model.encode(flux), model.encode(flux, source_id=np.arange(1, 10)))
    for function in (model.encode, model.predict, model.generate):
        with pytest.raises(SpectangleError, match="8 source_id and 9 spectra"):
            function(flux, source_id=np.arange(8))
    with pytest.raises(SpectangleError, match="float"):
        model.encode(flux, source_id=np.arange(9.0))


def test_predict_writes_the_latents_of_the_stars(
    model, stars, latent, stochastic_run, toy_survey, tmp_path, monkeypatch
):
    monkeypatch.setattr("spectangle.inference.spectra_input.CHUNK", 37)
    table = Table.read(predict(str(stochastic_run), str(toy_survey), str(tmp_path / "stars.fits"), latents=True))
    order = np.argsort(table["source_id"])
    rows = order[np.searchsorted(table["source_id"], stars.source_id, sorter=order)]
    np.testing.assert_allclose(written(table)[rows], latent, **TOLERANCE)


def test_an_ensemble_reads_each_model_with_its_own_sigma(model, stars):
    other = replace(model, network=copy.deepcopy(model.network))
    with torch.no_grad():
        other.network.channel.log_sigma -= 2.0
    flux, ids = stars.flux.numpy(), stars.source_id
    both, one, two = (read_spectra(models, flux, None, ids) for models in ([model, other], [model], [other]))
    assert np.abs(one.labels - two.labels).mean(0).min() > 0
    np.testing.assert_allclose(both.labels, (one.labels + two.labels) / 2, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(both.latent, one.latent)


def test_calibration_is_of_what_predictions_do(model, stochastic_run):
    data = load_stars(Run(stochastic_run))
    train = model.network.embed_stars(data.train)
    np.testing.assert_allclose(model.calibration.latent_mean, train.mean(0), rtol=1e-5, atol=1e-6)
    reading = read_spectra([model], data.validation.flux.numpy(), None, data.validation.source_id)
    distance, _ = model.calibration.quality_scores(reading, has_error=False)
    assert distance.max() > 0.5 and np.mean(distance > 1) <= 0.03
    scores = np.abs(
        read_spectra([model], data.test.flux.numpy(), None, data.test.source_id).labels - data.test.labels.numpy()
    )
    assert (scores > 0).all() and len(model.calibration.test_scores) == len(scores)


def test_generated_spectra_start_from_the_draws_of_their_parents(
    model, stars, latent, stochastic_run, toy_survey, tmp_path
):
    parents = together(parent_blocks(model, str(stochastic_run), None, n_stars=12))
    np.testing.assert_allclose(parents.latent, latent[:12], **TOLERANCE)
    wanted = stars.source_id[[7, 3]].tolist()
    out = generate(
        str(stochastic_run),
        str(tmp_path / "new.h5"),
        {"m_h": 0.0},
        spectra=str(toy_survey),
        source_id=wanted,
        figure=False,
    )
    labels = stars.labels.numpy()[[7, 3]].copy()
    labels[:, 2] = 0.0
    with Survey(out) as survey:
        np.testing.assert_allclose(survey.flux(), model.decode(latent[[7, 3]], labels), rtol=1e-4)


def test_an_exported_model_draws_the_same(model, stars, latent, exported: Path):
    theirs = spectangle.load(exported)
    np.testing.assert_array_equal(theirs.network.channel.log_sigma.detach(), model.network.channel.log_sigma.detach())
    flux, ids = stars.flux.numpy(), stars.source_id
    np.testing.assert_array_equal(theirs.encode(flux, source_id=ids), model.encode(flux, source_id=ids))
    np.testing.assert_array_equal(theirs.network.embed_stars(stars), latent)


def test_onnx_gets_the_draws_as_an_input(model, stars, latent, exported: Path):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["flux", "noise"]
    flux, noise = (
        stars.flux.numpy()[:11],
        star_normal(stars.source_id[:11], latent.shape[1], seed=int(model.network.channel.salt)),
    )
    z, labels = session.run(None, {"flux": flux, "noise": noise})
    np.testing.assert_allclose(z, latent[:11], atol=1e-5)
    np.testing.assert_allclose(labels[:, 0], model.predict(flux, source_id=stars.source_id[:11])["teff"], rtol=1e-5)


def test_a_deterministic_graph_has_one_input(tmp_path: Path):
    import onnxruntime

    from spectangle.export.onnx import export_onnx

    assert export_onnx(trained_model({}), tmp_path / "model.onnx") < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["flux"]


def test_the_card_says_that_the_latent_is_a_sample_and_how_to_draw_it(exported: Path):
    card = (exported / "README.md").read_text()
    assert (
        "The latent is a sample" in card and "star_normal(source_id, 4, seed=" in card and "source_id=source_id" in card
    )


def test_the_explorer_shows_the_draws(stars, latent, stochastic_run):
    bundle = make_bundle(str(stochastic_run), stars=3, map_stars=20)
    shown, ids = _unpacked(bundle.payload["runs"][0]["latent"]), np.array(bundle.payload["stars"]["id"], np.int64)
    places = [int(np.flatnonzero(stars.source_id == one)[0]) for one in ids]
    np.testing.assert_allclose(shown, latent[places], atol=1e-3)
    found = bundle.look_up(str(stars.source_id[4]))
    np.testing.assert_allclose(_unpacked(found["latents"][0]), latent[4:5], **TOLERANCE)


def test_two_models_draw_otherwise_for_the_same_star():
    """A table of latents and ids does not give the mean away: the draws need the model's own salt."""
    torch.manual_seed(0)
    one, two = NoisyChannel(4), NoisyChannel(4)
    assert int(one.salt) != int(two.salt)
    ids = np.arange(1000) + 2**60
    draws = [star_normal(ids, 4, seed=int(channel.salt)) for channel in (one, two)]
    assert abs(np.corrcoef(draws[0].ravel(), draws[1].ravel())[0, 1]) < 0.1


def test_a_small_survey_is_fitted_on_several_draws_and_scored_on_the_one_that_is_released(stochastic_run):
    data, model = load_stars(Run(stochastic_run)), load_autoencoder(Run(stochastic_run))
    fitted: list[np.ndarray] = []

    class Notes(Ridge):
        def fit(self, X, y):
            fitted.append(np.asarray(X))
            return super().fit(X, y)

    DownstreamRegressor(Notes(), draws=3).score(model, data)
    n = len(data.train)
    first, second, third = fitted[0][:n], fitted[0][n : 2 * n], fitted[0][2 * n :]
    np.testing.assert_array_equal(first, model.embed_stars(data.train))
    np.testing.assert_array_equal(second, model.embed_draws(data.train, 2)[1])
    sigma = (first - second).std(0)
    alike = np.corrcoef((first - second).ravel(), (first - third).ravel())[0, 1]
    assert (sigma > 0).all() and np.abs(alike - 0.5) < 0.1  # they share the first draw alone
