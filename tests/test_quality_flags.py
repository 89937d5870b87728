"""Distance and misfit are judged by the S/N: as few false alarms and as few missed stars at 20 as at 200."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from commands import run_train

from spectangle.data.load import load_stars
from spectangle.data.module import SpectraDataModule
from spectangle.inference.calibrate import calibrate
from spectangle.inference.flag_limits import limit_at, limit_by_level, limit_knots
from spectangle.inference.load import load
from spectangle.inference.misfit import Misfit, estimated_noise
from spectangle.inference.quality import Limits, Quality, quality
from spectangle.inference.spoilt_stars import noise_levels, noisier, spoilt_stars
from spectangle.inference.trained import TrainedModel
from spectangle.runs.folder import Run
from spectangle.survey.writer import SurveyWriter

PIXELS = np.arange(100)
BITS = Quality.OUT_OF_DISTRIBUTION | Quality.POOR_RECONSTRUCTION


def spectra(scaled: np.ndarray) -> np.ndarray:
    """Spectra [n, 100] free of noise: twelve lines, each as deep as a mixture of two labels [n, 2] says."""
    random = np.random.default_rng(1)
    depth = 0.3 + 0.15 * np.tanh(scaled @ random.normal(size=(2, 12)))
    places = np.linspace(6, 93, 12) + random.uniform(-2, 2, 12)
    return 1 - depth @ np.exp(-0.5 * ((PIXELS - places[:, None]) / 1.3) ** 2)


def observed(clean: np.ndarray, snr, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    error = np.broadcast_to(1 / np.asarray(snr, float)[..., None], clean.shape)
    return clean + error * random.standard_normal(clean.shape), error


def write_lines(path: Path, with_errors: bool = True) -> Path:
    """A survey of 4,000 such stars with S/N from 12 to 150."""
    random = np.random.default_rng(0)
    scaled = random.normal(size=(4000, 2))
    flux, error = observed(spectra(scaled), np.exp(random.uniform(np.log(12), np.log(150), len(scaled))), random)
    labels = {"teff": 5000 + 700 * scaled[:, 0], "logg": 3 + scaled[:, 1]}
    with SurveyWriter(path, 846 + 0.03 * PIXELS, {"teff": "K", "logg": "dex"}, origin="lines", release="1") as writer:
        ids = 1 + random.permutation(len(scaled)).astype(np.int64)
        writer.append(ids, flux, labels, flux_error=error if with_errors else None)
    return path


@pytest.fixture(scope="module")
def run(own_cache, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    survey = write_lines(folder / "lines.h5")
    words = ["data=survey", f"data.path={survey}", "data.batch_size=64", "model=tiny", "lambdas=none", "threads=1"]
    words += ["trainer.max_epochs=30", "callbacks.probes=null", "callbacks.figures=null"]
    words += [f"hydra.run.dir={folder / 'run'}"]
    run_train(*words)
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> TrainedModel:
    return load(run)


def clean_stars(n: int = 3000) -> np.ndarray:
    """Other stars of the same kind."""
    return spectra(np.random.default_rng(2).normal(size=(n, 2)))


def flagged(model: TrainedModel, clean: np.ndarray, snr: float, with_errors: bool) -> float:
    """Fraction of the stars that are flagged when they are seen at some S/N."""
    flux, error = observed(clean, np.full(len(clean), snr), np.random.default_rng(int(snr)))
    table = model.predict(flux, error if with_errors else None)
    return float(np.mean(np.asarray(table["flags"]) & BITS > 0))


@pytest.mark.parametrize("with_errors", [True, False])
@pytest.mark.parametrize("snr", [20, 60, 200])
def test_normal_stars_are_seldom_flagged_at_any_snr(model: TrainedModel, snr: float, with_errors: bool):
    assert 0.001 < flagged(model, clean_stars(), snr, with_errors) < 0.08  # 1 % for either flag; 320 validation stars


@pytest.mark.parametrize("with_errors", [True, False])
@pytest.mark.parametrize("snr", [20, 60, 200])
def test_spoilt_stars_are_flagged_at_any_snr(model: TrainedModel, snr: float, with_errors: bool):
    clean = clean_stars(300)
    tilted = clean * (1 + 0.1 * np.linspace(-1, 1, len(PIXELS)))
    for spoilt in (np.roll(clean, 2, axis=1), (clean + np.roll(clean[::-1], 5, axis=1)) / 2, tilted):
        assert flagged(model, spoilt, snr, with_errors) > 0.9


def test_a_survey_without_errors_judges_by_the_noise_that_it_sees(model: TrainedModel, tmp_path: Path):
    stars = SpectraDataModule(str(write_lines(tmp_path / "bare.h5", with_errors=False)))
    stars.setup()
    bare = model.with_calibration(calibrate([model], stars))
    assert not bare.calibration.known_errors
    for with_errors in (True, False):
        assert flagged(bare, clean_stars(), 60, with_errors) < 0.05
        assert flagged(bare, np.roll(clean_stars(300), 2, axis=1), 60, with_errors) > 0.9


@pytest.mark.parametrize(("share", "value", "known"), [(0.8, 0.0, 1), (0.8, np.nan, 1), (0.8, np.inf, 1), (1, 0.0, 0)])
def test_stars_without_usable_errors_leave_the_others_alone(
    model: TrainedModel, tmp_path: Path, share: float, value: float, known: int
):
    path = write_lines(tmp_path / "gaps.h5")
    with h5py.File(path, "r+") as file:
        file["flux_error"][: int(share * len(file["flux_error"]))] = value
    stars = SpectraDataModule(str(path))
    stars.setup()
    gaps = model.with_calibration(calibrate([model], stars))
    assert gaps.calibration.known_errors == known
    for with_errors in (True, False):
        assert flagged(gaps, clean_stars(1000), 60, with_errors) < 0.08


def test_masked_pixels_and_empty_stars_leave_the_others_alone(model: TrainedModel):
    flux, error = observed(clean_stars(8), np.full(8, 60.0), np.random.default_rng(0))
    whole = model.predict(flux, error)
    flux[3], flux[5, 10:14] = np.nan, np.nan
    table = model.predict(flux, error)
    assert np.isnan(table["misfit_score"][3]) and np.isfinite(table["misfit_score"][5])
    rest = [0, 1, 2, 4, 6, 7]
    np.testing.assert_allclose(table["misfit_score"][rest], whole["misfit_score"][rest], rtol=1e-4)


def test_a_calibration_of_another_version_is_made_again(run: Path, model: TrainedModel, caplog):
    (stored,) = run.glob("derived/calibration-*.npz")
    whole = stored.read_bytes()
    with np.load(stored) as file:
        arrays = dict(file)
    arrays["limits"], _ = np.ones(4), arrays.pop("misfit_basis")
    np.savez(stored, **arrays)
    with caplog.at_level("INFO"):
        again = load(run)
    assert "another version" in caplog.text and stored.stat().st_size == len(whole)
    np.testing.assert_array_equal(again.calibration.limits, model.calibration.limits)
    assert len(load_stars(Run(run)).validation) == len(again.calibration.scores)


def test_what_is_not_finite_sets_its_bit():
    """A star whose chi2 overflowed had a misfit of NaN, and no flag."""
    nan, inf = np.nan, np.inf
    values = {
        "snr": np.array([nan, 50, 50, 50, inf, nan]),
        "masked": np.array([0, 0, 0, 0, 0, 1.0]),
        "labels": np.array([[1.0], [1.0], [nan], [1.0], [1.0], [nan]]),
        "ood": np.array([0.5, 0.5, 0.5, inf, 0.5, nan]),
        "misfit": np.array([0.5, nan, 0.5, 0.5, 0.5, nan]),
    }
    words = quality(Limits(), label_range=np.array([[0.0], [2.0]]), **values)
    bits = [0, Quality.POOR_RECONSTRUCTION, Quality.OUTSIDE_LABELS, Quality.OUT_OF_DISTRIBUTION, Quality.LOW_SNR]
    assert words.tolist() == [*bits, Quality.NO_DATA | Quality.MASKED]


def test_what_is_at_a_limit_is_within_it():
    """Training left out stars with more than 0.2 of their pixels masked, and 0.2 of 40 pixels are 8; labels may lie on
    the edge of the training range.
    """
    ones, limits = np.ones(2), Limits(min_snr=15, max_masked=0.2, max_ood=1, max_misfit=2)
    labels = np.array([[0.0, 5.0], [2.0, 7.0]])
    assert not quality(limits, 15 * ones, 8 / 40 * ones, labels, labels, ones, 2 * ones).any()
    one_outside = np.array([[1.0, 8.0], [-1.0, 6.0]])
    unknown = np.array([1.1, np.nan])
    words = quality(limits, 14.9 * ones, 9 / 40 * ones, one_outside, labels, unknown, 2.1 * ones)
    assert words.tolist() == [sum(Quality) - Quality.NO_DATA] * 2


def test_the_bits_stay_what_they_are_in_tables_that_are_out():
    names = ["NO_DATA", "LOW_SNR", "MASKED", "OUTSIDE_LABELS", "OUT_OF_DISTRIBUTION", "POOR_RECONSTRUCTION"]
    assert {bit.name: bit.value for bit in Quality} == {name: 2**i for i, name in enumerate(names)}


def test_limits_follow_the_level_and_go_on_beyond_it():
    random = np.random.default_rng(0)
    level = np.exp(random.uniform(np.log(10), np.log(100), 20_000))
    knots = limit_knots(level)
    limits = limit_by_level(level, level * random.exponential(size=len(level)), knots)
    for seen in (12.0, 30.0, 90.0, 300.0):
        new = seen * random.exponential(size=20_000)
        assert np.mean(new > limit_at(np.full(len(new), seen), knots, limits)) == pytest.approx(0.01, abs=0.005)


def test_misfit_is_a_chi2_of_whitened_residuals():
    """With the covariance that it was told, its means are the numbers of directions, whatever the level."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(50, 3)))[0]
    variance = np.array([4.0, 1.0, 0.5])
    whitening = np.concatenate([np.eye(3)[:, :1], np.eye(3)], axis=1)
    arrays = (basis, whitening, np.append(variance[:1], variance), np.array([1.0, 0.0]))
    misfit = Misfit(*(torch.tensor(array, dtype=torch.float32) for array in arrays))
    for level in (0.1, 1.0, 30.0):
        model_error = level * np.sqrt(variance) * random.normal(size=(20_000, 3)) @ basis.T
        weighted = torch.tensor(model_error + random.normal(size=(20_000, 50)), dtype=torch.float32)
        chi2, count = weighted.square().sum(1), torch.full((20_000,), 50)
        few, all_ = misfit(weighted, chi2, torch.full((20_000,), level), count).mean(0).tolist()
        assert few == pytest.approx(1, abs=0.05) and all_ == pytest.approx(1, abs=0.02)


def test_noise_is_told_from_lines_and_masked_pixels():
    random = np.random.default_rng(0)
    lines = np.tile(np.exp(-0.5 * ((np.arange(400) % 20 - 10) / 2) ** 2), (50, 1))
    values = torch.from_numpy(lines * 0.03 + 0.02 * random.normal(size=lines.shape))
    values[:, ::20] = 0
    sigma = estimated_noise(values, torch.full((50,), 380))
    assert sigma.median() == pytest.approx(0.02, rel=0.15)


def test_spoilt_and_noisier_stars():
    clean, random = clean_stars(5), np.random.default_rng(0)
    kinds = [np.abs(spoilt - clean).max(axis=1) for spoilt in spoilt_stars(clean, random)]
    assert len(kinds) == 5 and all((change > 1e-3).all() for change in kinds)
    assert list(noise_levels(np.full(9, 8.0))) == [] and noise_levels(np.full(9, 100.0))[0] == pytest.approx(10)
    flux, error = noisier(np.ones((4, 9999)), np.full((4, 9999), 0.01), np.full(4, 100.0), 20.0, random)
    np.testing.assert_allclose(error, 0.05, rtol=1e-6)
    np.testing.assert_allclose(flux.std(axis=1), np.sqrt(0.05**2 - 0.01**2), rtol=0.05)
