"""The physical limit: as computed by hand where that can be done, beaten by no regressor, told wherever it is known."""

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest

from spectangle.caching import cache_folder
from spectangle.console import render
from spectangle.data.embedded_survey import EmbeddedSurveyDataModule
from spectangle.data.module import SpectraDataModule
from spectangle.evaluation.at_limit import limit_metrics, limit_residuals
from spectangle.evaluation.downstream import DownstreamRegressor
from spectangle.evaluation.regressors import (
    averaged_regressor,
    ridge_regressor,
    sklearn_regressor,
    small_survey_regressor,
    torch_regressor,
)
from spectangle.evaluation.results_table import result_table
from spectangle.figures import noise_residual_figure
from spectangle.reports.table1.baselines import Baseline, principal_components
from spectangle.reports.table1.collect import FIRST
from spectangle.survey.file import Survey
from spectangle.survey.writer import SurveyWriter
from spectangle.synthetic import LABELS, limit, write_survey
from spectangle.synthetic.embedded import ORIGIN
from spectangle.synthetic.limit import (
    likelihood,
    observed_stars,
    physical_limit,
    posterior_medians,
    star_likelihood,
    star_nuisances,
)
from spectangle.synthetic.observation import LEVEL, TILT
from spectangle.synthetic.population import LIMITS, VELOCITY_SCATTER, Mixture, vbroad_prior
from spectangle.tracking.record import downstream_rows

N, P, NOISE = 4000, 6, 0.05
WIDE = np.array([[-1e3, 1e3]])


def mixture(weights: list[float], means: list[float], sigmas: list[float], limits: np.ndarray = WIDE) -> Mixture:
    """Of one label, whose scaled values are the values."""
    variances = np.square(sigmas)[:, None, None]
    return Mixture(np.array(weights), np.array(means)[:, None], variances, np.zeros(1), np.ones(1), limits)


@pytest.fixture(scope="module")
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_one_label_linear_spectra_and_a_gaussian_prior_are_as_by_hand(random):
    response, mean, sigma = np.linspace(-0.1, 0.1, P), 2.0, 0.5
    truth, noise = mean + sigma * random.standard_normal(N), NOISE * random.standard_normal((N, P))
    told = likelihood(np.tile(response[None, :, None], (N, 1, 1)), np.zeros((N, P, 0)), noise, np.full((N, P), NOISE))
    read = posterior_medians(told, truth[:, None], mixture([1.0], [mean], [sigma]))[:, 0]
    spectra = truth[:, None] * response + noise
    precision = response @ response / NOISE**2 + sigma**-2
    by_hand = (spectra @ response / NOISE**2 + mean / sigma**2) / precision
    np.testing.assert_allclose(read, by_hand, atol=1e-7)
    assert np.mean((read - truth) ** 2) == pytest.approx(1 / precision, rel=0.07)  # three sigma of 4,000 stars
    assert np.mean((read - truth) ** 2) < 0.8 * np.mean((spectra @ response / (response @ response) - truth) ** 2)
    assert told.misfit.mean() == pytest.approx((P - 1) / P, rel=0.04)


def test_nuisances_are_marginalised_over_their_priors_and_bad_pixels_tell_nothing(random):
    response, nuisance = random.normal(size=(1, P, 2)), random.normal(size=(1, P, 3))
    residual, error = random.normal(size=(1, P)), random.uniform(0.5, 2.0, size=(1, P))
    told = likelihood(response, nuisance, residual, error)
    covariance = np.diag(error[0] ** 2) + nuisance[0] @ nuisance[0].T
    np.testing.assert_allclose(told.precision[0], response[0].T @ np.linalg.solve(covariance, response[0]))
    np.testing.assert_allclose(told.score[0], response[0].T @ np.linalg.solve(covariance, residual[0]))
    spoilt = np.where(np.arange(P) == 2, np.nan, residual)
    rest = np.arange(P) != 2
    one, other = (
        likelihood(response, nuisance, spoilt, error),
        likelihood(response[:, rest], nuisance[:, rest], residual[:, rest], error[:, rest]),
    )
    for name in ("precision", "score", "misfit"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name))


def test_the_median_is_that_of_the_mixture_inside_its_limits(random):
    prior = mixture([0.7, 0.3], [0.0, 2.0], [0.4, 0.7], np.array([[-0.5, 2.2]]))
    truth, precision, score = np.array([1.0, -0.3, 2.0]), np.array([1.5, 4.0, 0.1]), np.array([0.5, -2.0, 0.3])
    told = limit.Likelihood(precision[:, None, None], score[:, None], np.ones(3))
    read = posterior_medians(told, truth[:, None], prior)[:, 0]
    x = np.linspace(-0.5, 2.2, 200_001)
    density = sum(
        w / s * np.exp(-0.5 * ((x - m) / s) ** 2) for w, m, s in ((0.7, 0.0, 0.4), (0.3, 2.0, 0.7))
    )  # the prior
    for i in range(3):
        posterior = density * np.exp(score[i] * (x - truth[i]) - 0.5 * precision[i] * (x - truth[i]) ** 2)
        total = np.cumsum(posterior)
        assert read[i] == pytest.approx(x[np.searchsorted(total, 0.5 * total[-1])], abs=1e-4)


@pytest.fixture(scope="module")
def survey(shared) -> Path:
    return shared("embedded.h5", lambda path: write_survey(path, n_stars=4000))


@pytest.fixture(scope="module")
def data(survey) -> SpectraDataModule:
    data = SpectraDataModule(str(survey))
    data.setup()
    return data


def test_what_the_spectra_tell_of_the_embedded_survey_is_what_they_are_found_to_tell(survey):
    stars = observed_stars(survey, np.arange(1000))
    told = star_likelihood(stars)
    with Survey(survey) as file:
        bright = file.column("snr")[:1000] > 60
    pull = np.einsum("nk,nkl,nl->n", told.score, np.linalg.inv(told.precision), told.score)
    expected = len(LABELS)  # chi2 of the efficient estimate about the truth: seen through the true noise
    assert pull[bright].mean() == pytest.approx(expected, abs=4 * np.sqrt(2 * expected / bright.sum()))
    assert told.misfit.mean() == pytest.approx(1, abs=0.02)


def quiet_stars(vbroad: float, velocity: float) -> limit.ObservedStars:
    """Stars without noise that are broadened by so many times the usual, and move."""
    labels = np.array([[6400.0, 4.1, -0.3, 0.1], [4400.0, 2.0, 0.0, 0.2]])  # hot stars turn faster
    broadening, moving = vbroad_prior(labels)[0] * vbroad, np.full(2, velocity)
    flux = limit._spectra(labels, broadening, moving)
    return limit.ObservedStars(flux, np.full(flux.shape, 0.01), labels, broadening, moving)


@pytest.mark.parametrize(("vbroad", "velocity"), [(1.1, 0.0), (0.9, 0.0), (1.0, 0.5), (1.0, -0.5)])
def test_the_residual_is_what_is_seen_beyond_usual_stars_at_rest(vbroad, velocity):
    """With the signs of both: otherwise a fast rotator would be read as one that is twice as slow."""
    _, residual = star_nuisances(quiet_stars(vbroad, velocity))
    expected = quiet_stars(vbroad, velocity).flux - quiet_stars(1.0, 0.0).flux
    assert np.linalg.norm(residual - expected) < 0.2 * np.linalg.norm(expected)


def test_nuisances_are_changes_of_one_sigma():
    stars = quiet_stars(1.0, 0.0)
    nuisance, _ = star_nuisances(stars)
    moved = [quiet_stars(1.0, sign * VELOCITY_SCATTER).flux for sign in (1, -1)]
    expected = 0.5 * (moved[0] - moved[1])
    assert np.linalg.norm(nuisance[..., 1] - expected) < 0.1 * np.linalg.norm(expected)
    np.testing.assert_allclose(nuisance[..., 2], LEVEL * stars.flux)
    np.testing.assert_allclose(nuisance[..., 3], TILT * stars.flux * np.linspace(-1, 1, stars.flux.shape[1]))


@pytest.mark.parametrize("k", range(4))
def test_a_label_changes_the_spectrum_also_by_the_broadening_that_goes_with_it(k):
    stars = quiet_stars(1.0, 0.0)
    by_broadening = star_nuisances(stars)[0][:, :, 0] / vbroad_prior(stars.labels)[1][:, None]
    found = limit._by_label(stars, by_broadening, k)
    step = 0.005 * (LIMITS[k][1] - LIMITS[k][0])
    ends = [stars.labels + sign * step * np.eye(4)[k] for sign in (1, -1)]
    above, below = (limit._spectra(labels, vbroad_prior(labels)[0], stars.velocity) for labels in ends)
    expected = (above - below) / (2 * step)
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_stars_are_read_from_any_piece_of_the_survey_and_cached_by_their_places(survey, monkeypatch, tmp_path):
    monkeypatch.setenv("SPECTANGLE_CACHE", str(tmp_path))
    rows = np.array([3, 6, 7, 20, 48])
    with Survey(survey) as file:
        flux, error = file.flux(0, 49)[rows], np.asarray(file.flux_error(0, 49))[rows]
    monkeypatch.setattr(Survey, "chunks", lambda self: [(start, start + 7) for start in range(0, 49, 7)])
    stars = observed_stars(survey, rows)
    np.testing.assert_array_equal(stars.flux, flux)
    np.testing.assert_array_equal(stars.flux_error, error)
    monkeypatch.setattr(limit, "_limit", lambda path, rows: {name: rows.tolist() for name in LABELS})
    for some in (rows[:2], rows[2:4], rows[:2]):
        read = physical_limit(survey, some, LABELS)
        assert read is not None and read[:, 0].tolist() == some.tolist()


@pytest.mark.parametrize(
    "build",
    [
        averaged_regressor,
        ridge_regressor,
        torch_regressor,
        pytest.param(sklearn_regressor, marks=pytest.mark.slow),
        pytest.param(small_survey_regressor, marks=pytest.mark.slow),
    ],
)
def test_no_regressor_beats_the_limit(build, data, own_cache):
    few = np.arange(600 if build is small_survey_regressor else len(data.train))  # its support vector machines are slow
    regressor = build().fit(data.train.flux[few].numpy(), data.train.labels[few].numpy())
    found = regressor.predict(data.test.flux.numpy()) - data.test.labels.numpy()
    for name, at_limit in limit_residuals(data, np.arange(len(data.test))).items():
        more = np.abs(found[:, data.labels.index(name)]) - np.abs(at_limit)
        assert more.mean() > 3 * more.std() / np.sqrt(len(more)), name


def test_fainter_stars_have_a_higher_limit(data, survey, own_cache):
    residuals = limit_residuals(data, np.arange(len(data.test)))
    with Survey(survey) as file:
        snr = file.column("snr")[data.test.rows]
    for name in LABELS:
        faint, bright = (np.abs(residuals[name][some]).mean() for some in (snr < 15, snr > 60))
        assert faint > 1.3 * bright


def test_the_limit_of_some_labels_is_their_limit_among_all_and_is_computed_once(survey, own_cache, monkeypatch):
    rows = np.arange(0, 600, 2)
    every = physical_limit(survey, rows, LABELS)
    monkeypatch.setattr(limit, "_limit", lambda *_: pytest.fail("it is in the cache"))
    some = physical_limit(survey, rows, ("m_h", "vsini", "teff"))
    assert every is not None and some is not None
    np.testing.assert_array_equal(some[:, [0, 2]], every[:, [2, 0]])
    assert np.isnan(some[:, 1]).all()


def test_where_nobody_knows_the_limit_there_is_none(toy_survey, survey, tmp_path, own_cache, caplog):
    assert physical_limit(toy_survey, np.arange(10), LABELS) is None
    assert physical_limit(survey, np.arange(10), ("vsini",)) is None
    toy = SpectraDataModule(str(toy_survey))
    toy.setup()
    assert limit_metrics(toy) == {} and limit_residuals(toy, np.arange(3)) == {}
    changed = copied(survey, tmp_path / "changed.h5", lambda flux: 0.9 + 0.1 * flux)
    with caplog.at_level(logging.WARNING):
        assert physical_limit(changed, np.arange(200), LABELS) is None
    assert "not those of this version's emulator" in caplog.text
    faithful = copied(survey, tmp_path / "same.h5", lambda flux: flux)
    assert physical_limit(faithful, np.arange(200), LABELS) is not None


def copied(survey: Path, path: Path, change) -> Path:
    """A survey under the embedded one's name, with other spectra."""
    with Survey(survey) as old, SurveyWriter(path, old.wavelength, dict.fromkeys(LABELS, ""), ORIGIN, "1") as new:
        new.append(
            old.source_id[:200],
            change(old.flux(0, 200)),
            {name: old.label(name)[:200] for name in LABELS},
            flux_error=old.flux_error(0, 200),
            columns={name: old.column(name)[:200] for name in old.columns},
        )
    return path


def test_missing_labels_are_left_out_of_the_errors_only(survey, tmp_path, own_cache):
    path = copied(survey, tmp_path / "gaps.h5", lambda flux: flux)
    whole = SpectraDataModule(str(path))
    whole.setup()
    before = limit_residuals(whole, np.arange(len(whole.test)))
    with h5py.File(path, "r+") as file:
        file["labels/m_h"][::3] = np.nan  # pyright: ignore[reportIndexIssue]
    gaps = SpectraDataModule(str(path))
    gaps.setup()
    after, metrics = limit_residuals(gaps, np.arange(len(gaps.test))), limit_metrics(gaps)
    missing = np.isnan(after["m_h"])
    np.testing.assert_array_equal(missing, gaps.test.rows % 3 == 0)
    np.testing.assert_allclose(after["m_h"][~missing], before["m_h"][~missing])
    assert metrics["limit/m_h/mae"] == pytest.approx(np.abs(before["m_h"][~missing]).mean())


def test_a_run_tells_the_limit_beside_what_it_reads(own_cache):
    data = EmbeddedSurveyDataModule(n_stars=400)
    data.setup()
    latent = Baseline(principal_components(data.train.flux.numpy(), 5), data.labels, FIRST)
    metrics = DownstreamRegressor(ridge_regressor(), cache=str(cache_folder())).score(latent, data)  # pyright: ignore
    assert list((cache_folder() / "limits").glob("*.json"))
    residuals = limit_residuals(data, np.arange(len(data.test)))
    for name in LABELS:
        assert metrics[f"limit/{name}/mae"] == pytest.approx(np.abs(residuals[name]).mean())
        assert metrics[f"limit/{name}/mae"] < metrics[f"test/spectra/{name}/mae"]
    assert not any(key.startswith("limit/") for key in DownstreamRegressor(ridge_regressor()).score(latent, data))  # pyright: ignore
    signs = dict.fromkeys(LABELS, "neutral")
    lines = render(result_table(metrics, LABELS, data.units, signs), width=120).splitlines()
    assert sum(" limit " in line for line in lines) == 4
    _, rows = downstream_rows(metrics, LABELS, data.units, signs)
    assert [row[3] for row in rows[:3]] == ["spectra", "latent", "limit"]


def test_the_limit_is_that_of_the_test_stars_by_their_places_in_the_survey(data, monkeypatch):
    """Some of them, against what the catalogue has, each beside its own row."""
    names, catalogue = data.labels, data.test.labels.numpy()
    errors = data.test.rows[:, None] * 1e-3 + np.arange(4)

    def told(path, rows, labels):
        assert labels == names and (np.diff(rows) > 0).all() and set(rows) <= set(data.test.rows)
        places = np.searchsorted(data.test.rows, rows)
        assert places.max() > 100  # drawn from all: a survey may be sorted
        found = catalogue[places] + errors[places]
        found[:, 3] = np.nan  # an emulator that does not know it
        return found

    monkeypatch.setattr("spectangle.evaluation.at_limit.physical_limit", told)
    monkeypatch.setattr("spectangle.evaluation.at_limit.MOST_STARS", 50)
    asked = np.arange(len(data.test))[::-3]
    residuals = limit_residuals(data, asked)
    known = np.isfinite(residuals["teff"])
    assert np.isfinite(limit_residuals(data, np.arange(len(data.test)))["teff"]).sum() == 50 and 0 < known.sum() < 50
    for i, name in enumerate(names[:3]):
        np.testing.assert_allclose(residuals[name][known], errors[asked][known, i], atol=1e-3)
    metrics = limit_metrics(data)
    assert metrics["limit/logg/mean"] == pytest.approx(metrics["limit/teff/mean"] + 1, abs=1e-3)
    assert metrics["limit/teff/mean"] > 0 and "limit/alpha_fe/mae" not in metrics


def test_the_limit_is_a_line_of_the_figure(random):
    residuals = {"latent": {"teff": random.normal(size=300)}, "spectra": {"teff": random.normal(size=300)}}
    some = np.where(np.arange(300) % 2, 0.5 * random.normal(size=300), np.nan)
    figure = noise_residual_figure(residuals, np.geomspace(10, 200, 300), {"teff": "K"}, limit={"teff": some})
    [line] = [one for one in figure.axes[0].lines if one.get_label() == "limit"]
    assert 0.2 < np.mean(np.asarray(line.get_ydata())) < 0.6 and line.get_linestyle() == "--"
    [legend] = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"latent", "spectra", "limit"}
