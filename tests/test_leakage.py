"""Leakage: cross-fitting, stacking, the floor and its correction, on cases whose answer is known."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.svm import SVR

from spectangle.evaluation import cross_fit
from spectangle.evaluation.averaged_networks import AveragedMLPRegressor
from spectangle.evaluation.cross_fit import CrossFit, Measured, stacked
from spectangle.evaluation.leakage import bootstrap_r2, leaks, share_lost, simex
from spectangle.metrics import r2

PROBES = {
    "ridge": Ridge(),
    "networks": AveragedMLPRegressor(hidden=(64, 32), members=1, epochs=30, batch_size=128),
    "boosting": HistGradientBoostingRegressor(max_iter=60),
    "neighbours": KNeighborsRegressor(20),
}


@pytest.fixture
def random():
    return np.random.default_rng(0)


def stars(z, labels, errors=None, truth=None, first=0):
    nothing = np.full(labels.shape, np.nan)
    ids = np.arange(first, first + len(z)) + 2**60
    return Measured(ids, z, labels, nothing if errors is None else errors, nothing if truth is None else truth)


def scores(z, label):
    half = len(z) // 2
    fit = CrossFit(PROBES, stars(z[:half], label[:half, None]), stars(z[half:], label[half:, None], first=half))
    predictions = fit.predictions(lambda s: s.z, lambda s: s.labels)
    found = {name: r2(prediction[:, 0], label[half:]) for name, prediction in predictions.items()}
    return found | {"all": r2(fit.stacked(predictions, 0, label[half:]), label[half:])}


def test_every_probe_finds_a_planted_label(random):
    label = random.normal(size=3000)
    z = random.normal(size=(3000, 6))
    z[:, 2] += 1.5 * label
    found = scores(z, label)
    assert all(0.45 < score < 0.75 for score in found.values())  # the most that can be read is 0.69
    assert found["all"] > max(score for name, score in found.items() if name != "all") - 0.01


def test_no_probe_finds_a_removed_label(random):
    found = scores(random.normal(size=(3000, 6)), random.normal(size=3000))
    assert all(score < 0.05 for score in found.values()) and found["all"] == pytest.approx(0, abs=0.01)


def test_a_nonlinear_trace_is_found_by_networks_and_missed_by_ridge(random):
    z = random.choice([-1.0, 1.0], size=(3000, 6)) + 0.1 * random.normal(size=(3000, 6))
    found = scores(z, np.sign(z[:, 1]) * np.sign(z[:, 4]))
    assert found["ridge"] < 0.05 and found["networks"] > 0.9 and found["all"] > 0.9


def test_a_shrunken_trace_is_still_found(random):
    """What hides from a discriminator: a trace a thousand times smaller than the rest."""
    label = random.normal(size=3000)
    z = random.normal(size=(3000, 6))
    z[:, 3] = 1e-3 * label
    assert scores(z, label)["networks"] > 0.9


def test_few_stars_need_those_that_the_encoder_saw(random):
    """A leak in 500 stars that only a strong probe of all of them finds: a hundred unseen ones do not show it."""
    z = random.normal(size=(500, 10))
    label = z[:, 1] * z[:, 4] + 0.3 * random.normal(size=500)
    seen, unseen = stars(z[:400], label[:400, None]), stars(z[400:], label[400:, None], first=400)
    probes = {"ridge": Ridge(), "svr": SVR(C=10, gamma=0.03)}
    found = {}
    for small in (False, True):
        fit = CrossFit(probes, seen, unseen, small=small)
        predicted = fit.predictions(lambda s: s.z, lambda s: s.labels)
        found[small] = r2(fit.stacked(predicted, 0, label[400:]), label[400:])
        assert r2(predicted["ridge"][:, 0], label[400:]) < 0.1
    assert found[True] > max(0.2, found[False] + 0.1)


def test_a_star_is_never_predicted_by_a_probe_that_saw_it(random, monkeypatch):
    unseen, spare = (
        stars(np.arange(100.0)[:, None], random.normal(size=(100, 1))),
        stars(np.arange(100.0, 130)[:, None], random.normal(size=(30, 1))),
    )
    fit = CrossFit({"spy": Ridge()}, unseen, unseen, spare)
    assert sorted(np.bincount(fit.fold)) == [20] * 5
    for fold in range(5):
        held = unseen[fit.fold == fold]
        rest = np.concatenate([unseen[fit.fold != fold].z, spare.z])
        assert not set(held.z[:, 0]) & set(rest[:, 0]) and len(rest) == 110
    asked = []
    original = cross_fit.fitted_predictions

    def noted(probes, x, y, new):
        asked.extend((set(a[:, 0]), set(b[:, 0])) for a, b in zip(x, new, strict=True))
        return original(probes, x, y, new)

    monkeypatch.setattr(cross_fit, "fitted_predictions", noted)
    fit.predictions(lambda s: s.z, lambda s: s.labels)
    assert len(asked) == 5 and all(not fitted & predicted and len(fitted) == 110 for fitted, predicted in asked)
    assert set.union(*(predicted for _, predicted in asked)) == set(np.arange(100.0))


def test_stacking_chooses_on_other_folds_than_it_is_scored_on(random):
    """Many candidates that know nothing: the best of them looks good on the stars where it was chosen, the stack does
    not.
    """
    truth, fold = random.normal(size=100), np.arange(100) % 5
    noise = [0.3 * random.normal(size=100) for _ in range(200)]
    assert max(np.corrcoef(candidate, truth)[0, 1] for candidate in noise) > 0.2
    assert r2(stacked(noise[:20], truth, fold), truth) < 0.05
    good = truth + random.normal(size=100)
    both = r2(stacked([good, *noise[:10]], truth, fold), truth)
    assert both == pytest.approx(r2(stacked([good], truth, fold), truth), abs=0.1) and both > 0.3
    assert np.allclose(stacked([], truth, fold)[fold == 0], truth[fold != 0].mean())


def test_stacking_knows_no_zero_of_a_label(random):
    """Kelvins: what is about 5000 K whoever is asked knows nothing, and gets no weight for it."""
    truth, fold = random.normal(size=200), np.arange(200) % 5
    candidates = [truth + random.normal(size=200), random.normal(size=200)]
    plain = stacked(candidates, truth, fold)
    hot = stacked([5000 + 700 * one for one in candidates], 5000 + 700 * truth, fold)
    np.testing.assert_allclose(hot, 5000 + 700 * plain, rtol=1e-9)
    assert r2(stacked([700 * candidates[1] + 5000], 5000 + 700 * truth, fold), 5000 + 700 * truth) < 0.05


def test_what_points_the_wrong_way_gets_no_weight(random):
    """A probe that errs on some stars is no knowledge of the others with its sign turned."""
    truth, fold = random.normal(size=200), np.arange(200) % 5
    assert stacked([-truth], truth, fold) == pytest.approx([truth[fold != part].mean() for part in fold])


def test_folds_and_bootstrap_are_of_stars_and_not_of_their_order(random):
    """The part that a star is predicted in follows from its id: a survey in another order has the same numbers, and a
    second look the same interval.
    """
    z, labels, _ = population(random, n=60)
    some, order = stars(z, labels), random.permutation(60)
    fit, again = CrossFit({}, some, some), CrossFit({}, some, some[order])
    assert np.array_equal(fit.fold[order], again.fold) and not np.array_equal(fit.fold, np.sort(fit.fold))
    draws = [bootstrap_r2([z[:, 0]], labels[:, 1], 5, seed) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])


def test_stars_that_have_a_label_stay_in_their_folds(random):
    """What was read of them in the latent was fitted without their fold."""
    z, labels, _ = population(random, n=60)
    labels[::4, 0] = np.nan
    fit = CrossFit({"ridge": Ridge()}, stars(z[:9], labels[:9]), stars(z, labels), stars(z[:5], labels[:5]), folds=4)
    some, rows = fit.having([0])
    assert np.array_equal(some.fold, fit.fold[np.isfinite(labels[:, 0])]) and np.array_equal(rows, labels[:, 0] > -99)
    assert [len(part) for part in (some.seen, some.scored, some.spare)] == [6, 45, 3] and some.folds == 4
    assert fit.having([1]) == (fit, slice(None))


def test_what_is_known_of_labels_is_said_of_all_their_stars(random):
    """One star without a true label, or without an error, and the others' do not count as known."""
    labels, errors, true = random.normal(size=(3, 5, 2))
    some = stars(labels, labels, errors, true)
    assert some.known([1])[1] == "true" and np.array_equal(some.known([1])[0], true[:, [1]])
    true[3, 1] = np.nan
    assert some.known([1])[1] == "errors" and np.array_equal(some.known([1])[0], labels[:, [1]])
    assert some.known([0])[1] == "true"
    errors[2, 1] = np.nan
    assert some.known([1])[1] == "catalogue" and some.known([0, 1])[1] == "catalogue"


def test_errors_are_added_once_more_as_often_as_simex_asks(random):
    labels, errors = np.zeros((20000, 2)), np.tile([0.5, 2.0], (20000, 1))
    blurred = stars(labels, labels, errors).blurred([1], 2.25, random)
    assert not blurred.labels[:, 0].any() and blurred.labels[:, 1].std() == pytest.approx(1.5 * 2.0, rel=0.03)


def population(random, n=4000, leaks_own=False, error=0.0):
    """m_h follows teff; the latent has teff, and m_h's own part if it leaks; the catalogue has errors."""
    teff, own = random.normal(size=(2, n))
    true = np.stack([teff, 0.7 * teff + 0.7 * own], axis=1)
    labels = true.copy()
    labels[:, 0] += error * random.normal(size=n)
    z = np.stack([teff, own if leaks_own else random.normal(size=n)], axis=1)
    return z, labels, true


def excess(z, labels, errors=None, truth=None, n=2000):
    probes = {"ridge": Ridge()}  # all is linear here

    def pick(values, part):
        return None if values is None else values[part]

    seen, scored = (
        stars(z[p], labels[p], pick(errors, p), pick(truth, p), first=p.start or 0)
        for p in (slice(0, n), slice(n, None))
    )
    fit = CrossFit(probes, seen, scored)
    return leaks(fit, fit.predictions(lambda s: s.z, lambda s: s.labels), [0], [1], 50, 0)[1]


@pytest.mark.parametrize("leaks_own", [False, True])
def test_excess_is_leakage_beyond_the_population(random, leaks_own):
    """A latent with teff shows m_h as far as the population does, and has no excess unless it knows more."""
    z, labels, _ = population(random, leaks_own=leaks_own)
    found = excess(z, labels)
    assert found.floor == pytest.approx(0.5, abs=0.05) and found.upper_bound
    assert found.excess == pytest.approx(0.5 if leaks_own else 0.0, abs=0.05)
    assert found.low <= found.excess <= found.high


def test_the_floor_is_that_of_the_true_kept_labels(random):
    """With catalogue errors in teff the floor is too low, and a latent that knows the true teff seems to leak: by
    truth, or by errors, not.
    """
    z, labels, true = population(random, n=12000, error=0.6)
    errors = np.full(labels.shape, 0.6)
    plain, corrected, known = (
        excess(z, labels, n=4000),
        excess(z, labels, errors, n=4000),
        excess(z, labels, errors, true, n=4000),
    )
    assert plain.upper_bound and not corrected.upper_bound and not known.upper_bound
    assert plain.floor < 0.4 and plain.excess > 0.1
    assert known.floor == pytest.approx(0.5, abs=0.03) and known.excess == pytest.approx(0, abs=0.02)
    assert corrected.floor == pytest.approx(0.5, abs=0.06) and abs(corrected.excess) < 0.06
    assert all(one.low < one.excess < one.high < one.low + 0.1 for one in (plain, corrected, known))
    assert excess(z, labels, errors, n=4000) == corrected  # the noise that is added is drawn alike


def test_a_latent_that_knows_nothing_has_no_excess_and_none_that_is_negative(random):
    """Whoever reads the latent may read the kept labels beside it."""
    z, labels, _ = population(random)
    found = excess(random.normal(size=z.shape), labels)
    assert found.floor == pytest.approx(0.5, abs=0.05) and found.excess == pytest.approx(0, abs=0.01)


def test_what_is_read_of_a_label_is_looked_up_under_that_label(random):
    """And that star: of the dropped labels the first may be the second of all, and stars may lack a kept one."""
    _, labels, _ = population(random, n=1500)
    labels = np.c_[labels, random.normal(size=1500)]
    oracle = {"oracle": labels.copy()}
    labels[::3, 0] = np.nan
    fit = CrossFit({"ridge": Ridge()}, *[stars(random.normal(size=(1500, 2)), labels)] * 2)
    found = leaks(fit, oracle, [0], [2, 1], 20, 0)
    assert found[1].floor == pytest.approx(0.5, abs=0.06) and found[1].excess == pytest.approx(0.5, abs=0.06)
    assert found[2].floor == pytest.approx(0, abs=0.02) and found[2].excess == pytest.approx(1, abs=0.02)


def test_nothing_is_said_of_a_label_that_a_whole_fold_lacks_or_that_is_constant(random):
    """What would be read there was chosen nowhere, or can be compared with nothing."""
    z, labels, _ = population(random, n=200)
    some = stars(z, labels)
    fit = CrossFit({"ridge": Ridge()}, some, some)
    labels[fit.fold == 2, 1] = np.nan
    assert leaks(fit, {"oracle": labels}, [], [1], 5, 0) == {}
    labels[np.flatnonzero(fit.fold == 2)[:2], 1] = 0.5, 0.7
    assert leaks(fit, {"oracle": np.nan_to_num(labels)}, [], [1], 5, 0)[1].stars == 162
    labels[:, 1] = 2.5
    assert leaks(fit, {"oracle": labels}, [], [1], 5, 0) == {}


@pytest.mark.parametrize("hidden", [True, False])
def test_latent_and_kept_labels_are_read_together_and_each_by_itself(random, hidden):
    """A trace whose sign the kept label tells is no trace to who reads one of them; and a latent of noise hides the
    kept label from who reads both.
    """
    teff, own = random.choice([-1.0, 1.0], size=3000), random.normal(size=3000)
    labels = np.stack([teff, teff * own if hidden else teff + 0.5 * own], axis=1)
    z = own[:, None] if hidden else 3 * random.normal(size=(3000, 30))
    fit = CrossFit(
        {"neighbours": KNeighborsRegressor(10)}, *(stars(z[p], labels[p]) for p in (slice(99), slice(99, None)))
    )
    read = fit.predictions(lambda s: s.z, lambda s: s.labels)
    found = leaks(fit, read, [0], [1], 20, 0)[1]
    assert found.excess == pytest.approx(1 if hidden else 0, abs=0.05)


def test_the_interval_of_an_excess_holds_95_of_100_resamples(random, monkeypatch):
    def draws(predictions, *_):
        assert len(predictions) == 2
        return np.stack([np.linspace(0.3, 1.3, 1001), np.full(1001, 0.3)])

    monkeypatch.setattr("spectangle.evaluation.leakage.bootstrap_r2", draws)
    found = excess(*population(random)[:2])
    assert [found.low, found.high] == pytest.approx([0.025, 0.975])


@pytest.mark.parametrize("part", ["seen", "scored"])
def test_a_missing_error_of_a_kept_label_costs_no_floor(random, part):
    z, labels, _ = population(random, error=0.5)
    errors = np.full(labels.shape, 0.5)
    errors[0 if part == "seen" else 3000, 0] = np.nan
    found = excess(z, labels, errors)
    assert found.upper_bound == (part == "scored") and np.isfinite(found.excess)


def test_stars_without_an_error_are_left_out_where_errors_are_added(random):
    """Of those that are only fitted on: noise of no size would be no number."""
    z, labels, _ = population(random, n=3000, error=0.5)
    errors = np.full(labels.shape, 0.5)
    errors[:2000:3, 0] = np.nan
    seen, spare, scored = (
        stars(z[p], labels[p], errors[p], first=p.start) for p in (slice(0, 1000), slice(1000, 2000), slice(2000, 3000))
    )
    found = leaks(CrossFit({"ridge": Ridge()}, seen, scored, spare, small=True), {}, [0], [1], 5, 0)[1]
    assert not found.upper_bound and found.floor == pytest.approx(0.5, abs=0.1)


def test_a_resample_of_one_star_has_no_r2():
    draws = bootstrap_r2([np.array([0.0, 1.0])], np.array([0.0, 2.0]))
    assert 0 < np.isnan(draws).sum() < draws.size and np.nanmax(draws) == 0.5


@pytest.mark.parametrize("n", [2, 3])
def test_fewer_scored_stars_than_folds_are_scored_one_by_one(random, n):
    z, labels, _ = population(random, n=40 + n)
    spare, scored = stars(z[:40], labels[:40]), stars(z[40:], labels[40:], first=40)
    fit = CrossFit({"ridge": Ridge()}, spare, scored, spare)
    found = fit.predictions(lambda s: s.z, lambda s: s.labels)["ridge"]
    assert fit.folds == n and np.isfinite(found).all() and r2(found[:, 0], labels[40:, 0]) > 0.9


def test_where_nothing_can_be_learnt_the_usual_is_said(random):
    z, labels, _ = population(random, n=5)
    fit = CrossFit({"ridge": Ridge()}, stars(z[:2], labels[:2]), stars(z[2:], labels[2:], first=2))
    found = fit.predictions(lambda s: s.z, lambda s: s.labels)["ridge"]
    assert found == pytest.approx(np.tile(labels[2:].mean(0), (3, 1)))


def test_a_fold_without_stars_to_learn_from_decides_for_all(random):
    """A probe that learns in some folds and guesses in others would be judged on both at once."""
    x = [random.normal(size=(n, 2)) for n in (40, 9)]
    y = [part[:, :1] + 3 for part in x]
    found = cross_fit.fitted_predictions({"ridge": Ridge()}, x, y, [x[1], x[0]])["ridge"]
    assert all(np.allclose(part, np.concatenate(y).mean()) for part in found)


def test_simex_reads_a_parabola_at_minus_one():
    def level(step):
        return 0.5 - 0.1 * step + 0.02 * step**2

    assert simex(level(0), {step: level(step) for step in (0.5, 1.0, 1.5)}) == pytest.approx(0.12)
    assert simex(0.5, {0.5: 0.51, 1.0: 0.52, 1.5: 0.53}) == 0  # errors make no floor higher: that is chance


def test_the_decoder_s_floor_is_what_errors_of_the_label_itself_say(random):
    z, labels, true = population(random)
    labels[:, 1] += 0.3 * random.normal(size=len(labels))
    errors = np.stack([np.zeros(len(labels)), np.full(len(labels), 0.3)], axis=1)
    found = excess(z, labels, errors, true)
    with_noise = np.c_[true[:, 0], labels[:, 1] - true[:, 1]]
    half = len(labels) // 2
    by_hand = Ridge().fit(with_noise[:half], labels[:half, 1]).score(with_noise[half:], labels[half:, 1])
    assert found.decoder == pytest.approx(by_hand, abs=0.03) and found.decoder > found.floor + 0.05


def test_the_share_that_is_lost_by_hand():
    assert share_lost(0.25, 1.0) == 0.75
    assert share_lost(1.2, 1.0) == 0 and share_lost(-0.3, 0.9) == 1


@pytest.mark.parametrize("reference", [-0.04, 0.0, 0.049, float("nan")])
def test_nothing_is_lost_of_what_the_spectra_do_not_hold(reference):
    """One run said that all of it was lost, the next that none was."""
    assert share_lost(-0.05, reference) is None and share_lost(-0.03, reference) is None


def test_bootstrap_covers_the_r2_and_is_paired(random):
    truth = random.normal(size=2000)
    close, closer = truth + 0.5 * random.normal(size=2000), truth + 0.49 * random.normal(size=2000)
    draws = bootstrap_r2([close, close, closer], truth, draws=300)
    low, high = np.quantile(draws[0], [0.025, 0.975])
    assert low < r2(close, truth) < high and high - low < 0.1
    assert np.array_equal(draws[0], draws[1])
    assert draws.shape == (3, 300)


def test_averaged_networks_are_repeatable_and_leave_the_random_state_alone(random):
    import torch

    x, y = random.normal(size=(200, 5)), random.normal(size=(200, 2))
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, two = (AveragedMLPRegressor((8,), members=3, epochs=3, seed=1).fit(x, y).predict(x) for _ in range(2))
    assert (one == two).all() and one.shape == (200, 2)
    assert torch.equal(before, torch.random.get_rng_state())
