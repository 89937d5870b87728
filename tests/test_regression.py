"""The downstream regressor: torch equals scikit-learn, files are safe, the baseline is cached."""

import dataclasses
import pickle
import zipfile

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor

from spectangle.errors import SpectangleError
from spectangle.evaluation.downstream import DownstreamRegressor
from spectangle.evaluation.regressors import (
    LabelGroups,
    TorchMLPRegressor,
    averaged_regressor,
    load_regressor,
    save_regressor,
    sklearn_regressor,
    torch_regressor,
)
from spectangle.packs.stopped_fits import StoppedFit


@pytest.fixture(scope="module")
def stars():
    random = np.random.default_rng(0)
    x = random.normal(size=(3000, 12)).astype(np.float32)
    y = np.stack([5000 + 600 * np.tanh(x[:, 0] + x[:, 1] * x[:, 2]), 3 + x[:, 3] * 0.5], axis=1) + random.normal(
        size=(3000, 2)
    ) * [60, 0.05]
    return x[:2400], y[:2400].astype(np.float32), x[2400:], y[2400:]


def test_torch_and_scikit_learn_agree_within_noise(stars):
    x, y, new_x, new_y = stars
    mae = {
        (build.__name__, seed): np.abs(build(hidden=(50, 25), seed=seed).fit(x, y).predict(new_x) - new_y).mean(0)
        for build in (sklearn_regressor, torch_regressor)
        for seed in (0, 1, 2)
    }
    ours, theirs = (
        np.mean([value for (name, _), value in mae.items() if name == f"{kind}_regressor"], axis=0)
        for kind in ("torch", "sklearn")
    )
    assert np.allclose(ours, theirs, rtol=0.08)


def test_absolute_error_reads_the_median_and_squared_error_the_mean():
    random = np.random.default_rng(0)
    x = np.sign(random.normal(size=(4000, 1))).astype(np.float32)
    y = np.c_[x[:, 0] + random.exponential(size=4000), random.normal(size=4000)]
    for loss, middle in (("absolute_error", np.log(2)), ("squared_error", 1.0)):
        fitted = averaged_regressor((16,), members=2, epochs=15, loss=loss).fit(x, y)
        read = fitted.predict(np.array([[-1.0], [1.0]]))[:, 0]
        assert read == pytest.approx([middle - 1, middle + 1], abs=0.12)
    with pytest.raises(SpectangleError, match="loss is 'cubic'; it must be squared_error or absolute_error"):
        averaged_regressor(loss="cubic").fit(x, y)


def test_stars_of_no_weight_teach_nothing(stars):
    x, y, new_x, new_y = stars
    spoilt = y.copy()
    spoilt[:1200] += 10 * y.std(0)
    shares = np.repeat([0.0, 1.0], 1200)[:, None].repeat(2, axis=1)
    read = LabelGroups(averaged_regressor((16,), epochs=20)).fit(x, spoilt, shares).predict(new_x)
    assert (np.abs(read - new_y).mean(0) < 0.6 * y.std(0)).all()


@pytest.mark.parametrize("build", [sklearn_regressor, torch_regressor])
def test_a_saved_regressor_predicts_the_same(stars, tmp_path, build):
    x, y, new_x, _ = stars
    fitted = build(hidden=(8,), max_iter=3).fit(x, y)
    save_regressor(fitted, tmp_path / "a.skops")
    assert np.array_equal(load_regressor(tmp_path / "a.skops").predict(new_x), fitted.predict(new_x))
    with zipfile.ZipFile(tmp_path / "a.skops") as archive:
        assert not any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())


def test_a_file_with_a_foreign_type_is_refused(tmp_path):
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    skops.io.dump(FunctionTransformer(pickle.loads), tmp_path / "evil.skops")
    with pytest.raises(SpectangleError, match="not known to be safe"):
        load_regressor(tmp_path / "evil.skops")


def test_same_seed_same_numbers(stars):
    x, y, new_x, _ = stars
    first, second, other = (
        torch_regressor(hidden=(8,), max_iter=4, seed=seed).fit(x, y).predict(new_x) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def stopped_fit(seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(600, 3)).astype(np.float32)
    y = np.c_[np.tanh(x[:, 0] + x[:, 1]), x[:, 2]] + random.normal(size=(600, 2))  # so noisy that they stop early
    return StoppedFit(x, y.astype(np.float32), random.uniform(0.5, 1.5, 600), (12, 6), 1e-4, 60, 2, 8, seed)


def test_networks_that_stop_are_together_what_they_are_alone():
    """Each stops at an epoch of its own and is given as it was at its best; one that diverges disturbs nobody."""
    fits = [stopped_fit(seed) for seed in range(4)]
    spoilt = dataclasses.replace(fits[3], inputs=np.full_like(fits[3].inputs, 1e30))
    together = StoppedFit.together([*fits[:3], spoilt], torch.device("cpu"))
    assert len({found.epochs for found in together[:3]}) > 1 and max(found.epochs for found in together) < 60
    for fit, found in zip(fits[:3], together[:3], strict=True):
        alone = StoppedFit.together([fit], torch.device("cpu"))[0]
        assert found.epochs == alone.epochs and found.score == pytest.approx(alone.score, abs=1e-5)
        for layer, other in zip(found.layers, alone.layers, strict=True):
            for part, there in zip(layer, other, strict=True):
                np.testing.assert_allclose(part, there, atol=1e-4)
    assert together[3].epochs == 1 and not np.isfinite(together[3].score)
    with pytest.raises(SpectangleError, match="diverged: its inputs are not finite"):
        TorchMLPRegressor((12, 6), max_iter=3).fit(spoilt.inputs, spoilt.labels)


@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_paper_s_network_is_torch_s_where_a_gpu_fits(toy_survey, on_gpu, monkeypatch):
    from test_model import build as build_model

    from spectangle.data.module import SpectraDataModule

    monkeypatch.setattr("spectangle.evaluation.downstream.fits_on_gpu", lambda: on_gpu)
    data = SpectraDataModule(str(toy_survey))
    data.setup()
    few = {"hidden": (8,), "max_iter": 3}
    forms = {"paper": sklearn_regressor(**few), "paper_on_gpu": RandomForestRegressor(3)}  # any, also one with a length
    fitted = []
    callback = DownstreamRegressor(averaged_regressor((8,), epochs=2), **forms)
    fit = callback._fit_latent
    callback._fit_latent = lambda regressor, *given: fitted.append(regressor) or fit(regressor, *given)
    metrics = callback.score(build_model(data), data)
    assert fitted[1] is forms["paper_on_gpu" if on_gpu else "paper"] and metrics["paper/latent/teff/mae"] > 0


def test_the_baseline_is_fitted_once_for_a_survey_and_a_regressor(toy_survey, tmp_path):
    from test_model import build as build_model

    from spectangle.data.module import SpectraDataModule

    data = SpectraDataModule(str(toy_survey))
    data.setup()
    model = build_model(data)

    def score(max_iter):
        return DownstreamRegressor(
            sklearn_regressor(hidden=(8,), max_iter=max_iter), str(tmp_path / "run"), str(tmp_path / "cache")
        ).score(model, data)

    first, again = score(5), score(5)
    assert first["test/spectra/teff/mae"] == again["test/spectra/teff/mae"]
    assert first["time/regressor/spectra"] == again["time/regressor/spectra"]  # read, not fitted
    kept = [data.labels[i] for i in model.adversary.entangled]
    ratios = [first[f"test/latent/{name}/mae"] / first[f"test/spectra/{name}/mae"] for name in kept]
    assert kept and first["test/entangled_mae"] == pytest.approx(sum(ratios) / len(ratios))
    assert "val/spectra/teff/mae" in first
    score(6)
    assert len(list((tmp_path / "cache/baselines").glob("*.json"))) == 2
    assert {path.name for path in (tmp_path / "run/regressors").iterdir()} == {"latent.skops", "spectra.skops"}
