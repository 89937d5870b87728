"""The downstream regressor: torch equals scikit-learn, files are safe, the baseline is cached."""

import pickle
import zipfile

import numpy as np
import pytest

from spectangle.errors import SpectangleError
from spectangle.evaluation.downstream import DownstreamRegressor
from spectangle.evaluation.regressors import (
    LabelGroups,
    averaged_regressor,
    load_regressor,
    save_regressor,
    sklearn_regressor,
    torch_regressor,
)


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
