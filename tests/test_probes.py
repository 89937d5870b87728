"""The probes' callback: what it measures of a model whose latent is known, and what it says."""

import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import run_train
from conftest import TINY, write_toy_survey
from filelock import FileLock
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sweep_tools import wait_for

from spectangle.evaluation.averaged_networks import AveragedMLPRegressor
from spectangle.evaluation.cross_fit import CrossFit, Measured
from spectangle.evaluation.leakage import Leak, floor_predictions
from spectangle.evaluation.probe_scores import (
    attribute_scores,
    control_scores,
    excess_scores,
    label_scores,
    measured,
    target_columns,
)
from spectangle.evaluation.probe_table import disagreements, probe_table
from spectangle.evaluation.probes import Probes
from spectangle.metrics import r2
from spectangle.runs.folder import Run
from spectangle.runs.sweep_link import link

PROBES = {"ridge": Ridge(), "networks": AveragedMLPRegressor((32,), members=1, epochs=15)}
LABELS = ("teff", "m_h")


class Latent:
    """A model whose latent is what the test wants it to be."""

    def __init__(self, z, kept=(), dropped=(), joint=False):
        self.z, self.labels, self.targets = z, LABELS, LABELS
        self.adversary = SimpleNamespace(entangled=list(kept), disentangled=list(dropped), joint=joint)

    def embed_stars(self, stars):
        return self.z[stars.rows]


class Stars(SimpleNamespace):
    def __len__(self):
        return len(self.rows)


def data_of(labels):
    def stars(rows):
        unknown = np.full((len(rows), 2), np.nan)
        flux = torch.from_numpy(labels[rows].astype(np.float32)) + torch.zeros(len(rows), 2)
        return Stars(
            rows=rows,
            source_id=rows + 2**60,
            labels=torch.from_numpy(labels[rows]),
            attributes=torch.zeros(len(rows), 0),
            label_errors=unknown,
            true_labels=unknown,
            flux=flux,
        )

    parts = np.split(np.arange(len(labels)), [len(labels) // 2, len(labels) * 6 // 10])
    train, validation, test = map(stars, parts)
    return SimpleNamespace(
        train=train,
        validation=validation,
        test=test,
        labels=LABELS,
        attributes=(),
        classes={},
        fingerprint={"labels": len(labels)},
    )


@pytest.fixture
def random():
    return np.random.default_rng(0)


def population(random, n=4000, leak=0.0):
    teff, own = random.normal(size=(2, n))
    z = np.stack([teff, leak * own + random.normal(size=n)], axis=1)
    return z, np.stack([teff, 0.7 * teff + 0.7 * own], axis=1)


@pytest.mark.parametrize("leak", [0.0, 3.0])
def test_what_is_measured_of_a_kept_and_a_lost_label(random, leak, tmp_path):
    z, labels = population(random, leak=leak)
    data = data_of(labels)
    probes = Probes(PROBES, small_below=0, cache=str(tmp_path), bootstrap=50)
    found = probes.score(Latent(z, [0], [1]), data, data.test, spare=data.validation)  # pyright: ignore
    assert found["probe/teff/r2"] > 0.95 and found["probe/m_h/r2"] > 0.45
    assert (found["largest_excess"] > 0.3) == bool(leak)
    assert found["excess_is_upper_bound"] == 1
    assert abs(found["probe/m_h/control"]) < 0.05
    assert found["reference/teff/r2"] > 0.95 and 0 <= found["disentanglement/m_h"] <= 1
    assert "excess/teff" not in found and "probe/m_h/seen" in found
    table = probe_table(found, LABELS, {"teff": 1.0, "m_h": 0.0})
    assert table.columns[9].header == "excess\nat most"


def test_nothing_is_said_to_be_lost_of_what_the_spectra_do_not_hold(random, tmp_path):
    """A share of a reference at 0 was 0 in one run and 1 in the next."""
    z, labels = population(random)
    data = data_of(labels)
    for stars in (data.train, data.validation, data.test):
        stars.flux = torch.from_numpy(random.normal(size=(len(stars), 2)).astype(np.float32))
    probes = Probes(PROBES, small_below=0, cache=str(tmp_path), bootstrap=50)
    found = probes.score(Latent(z), data, data.test, spare=data.validation)  # pyright: ignore
    assert abs(found["reference/m_h/r2"]) < 0.05 and found["probe/m_h/r2"] > 0.45
    assert not any(key.startswith(("disentanglement/", "retention/")) for key in found)
    assert list(probe_table(found, LABELS, {"teff": 1.0, "m_h": 0.0}).columns[7].cells) == ["", ""]


def test_the_floor_of_the_same_stars_is_measured_once(random, tmp_path, monkeypatch):
    """Whatever the latent is; other kept labels, another seed, other stars have floors of their own."""
    z, labels = population(random)
    data, count = data_of(labels), []

    def counted(*given):
        count.append(given[1:])
        return floor_predictions(*given)

    for module in ("probes", "leakage"):
        monkeypatch.setattr(f"spectangle.evaluation.{module}.floor_predictions", counted)

    def score(z, cache=str(tmp_path), kept=(0,), dropped=(1,), seed=0, stars=data.test, prefix=""):
        probes, model = Probes({"ridge": Ridge()}, small_below=0, cache=cache, seed=seed), Latent(z, kept, dropped)
        return probes.score(model, data, stars, data.validation, prefix, full=not prefix)  # pyright: ignore

    first, again, other = score(z), score(z), score(z[::-1])
    assert len(count) == 1 and first == again and first["floor/m_h"] == other["floor/m_h"]
    assert first["excess/m_h"] != other["excess/m_h"]
    uncached = score(z, cache=None)
    assert len(count) == 2 and {key: first[key] for key in uncached} == uncached
    score(z, kept=(1,), dropped=(0,)), score(z, seed=1), score(z, stars=data.train, prefix="val/")
    assert len(count) == 5


def test_who_needs_a_floor_that_another_measures_does_a_part_of_it(random, tmp_path):
    """The lock of its first part is held, as by another run: the others are measured meanwhile."""
    z, labels = population(random)
    data, found = data_of(labels), []

    def score(cache):
        probes = Probes(PROBES, small_below=0, cache=str(cache), bootstrap=5)
        found.append(probes.score(Latent(z, [0], [1]), data, data.test, prefix="val/", full=False))  # pyright: ignore

    score(tmp_path / "alone")
    first, *others = sorted((tmp_path / "alone" / "floors").glob("*.json"))
    shared = tmp_path / "shared" / "floors"
    shared.mkdir(parents=True)
    with FileLock(shared / f"{first.name}.lock"):
        waiting = threading.Thread(target=score, args=(tmp_path / "shared",))
        waiting.start()
        wait_for(lambda: all((shared / other.name).exists() for other in others), 60)
        assert len(others) == 2 and len(found) == 1
        shutil.copy(first, shared)
    waiting.join(60)
    assert len(found) == 2 and found[0] == found[1]


@pytest.mark.parametrize(("on_gpu", "n", "found"), [(True, 6000, False), (False, 6000, True), (True, 600, True)])
def test_runs_of_a_pack_with_a_gpu_leave_out_what_only_cores_fit(random, on_gpu, n, found, monkeypatch):
    """``probes.gpu_packs_without``; of few stars every probe is taken, and a name that is not there is no mistake."""
    monkeypatch.setattr(link, "gpu_packs", on_gpu)
    probes = {"ridge": Ridge(), "boosting": Ridge(10.0)}
    labels = random.normal(size=(n, 2))
    callback = Probes(probes, small_below=2000, bootstrap=5, gpu_packs_without=["boosting", "another"])
    metrics = callback.score(Latent(labels.copy()), data_of(labels), data_of(labels).test)
    assert metrics["probe/teff/ridge/r2"] > 0.99 and ("probe/teff/boosting/r2" in metrics) is found
    assert metrics.get("probe/left_out") == (None if found else 1)


def test_every_probe_measures_the_floor_of_runs_that_leave_some_out(random, monkeypatch):
    """The errors of kept labels are taken out of the floor by trees among others: m_h is a wave of teff."""
    monkeypatch.setattr(link, "gpu_packs", True)
    true = random.uniform(-2, 2, 3000)
    labels = np.c_[true + random.normal(0, 0.3, 3000), np.sin(3 * true)]
    data = data_of(labels)
    for part in (data.train, data.validation, data.test):
        part.label_errors = np.tile([0.3, 0.0], (len(part), 1))
    trees = HistGradientBoostingRegressor(max_iter=12, learning_rate=0.4, random_state=0)
    probes = {"ridge": Ridge(), "boosting": trees, "networks": PROBES["networks"]}
    found = {}
    for without in ([], ["boosting"]):
        callback = Probes(probes, small_below=0, bootstrap=5, gpu_packs_without=without)
        model = Latent(labels[:, :1], [0], [1])
        found[bool(without)] = callback.score(model, data, data.test, spare=data.validation)
    assert found[True]["floor/m_h"] == found[False]["floor/m_h"] > found[True]["probe/m_h/r2"] + 0.05
    assert "probe/m_h/boosting/r2" in found[False] and "probe/m_h/boosting/r2" not in found[True]


def test_neutral_labels_are_no_leakage(random):
    z, labels = population(random)
    data = data_of(labels)
    found = Probes(PROBES, small_below=0).score(Latent(z), data, data.test)  # pyright: ignore
    assert not [key for key in found if "excess" in key or "floor" in key]


def test_what_the_run_s_own_regressor_reads_counts(random):
    """A regressor that knows more than every probe: no best probe is printed below it."""
    z, labels = population(random)
    data = data_of(labels)
    oracle = SimpleNamespace(
        predict=lambda z: labels[data.test.rows] + 0.3 * np.random.default_rng(1).normal(size=(len(z), 2))
    )
    with_it, without = (
        Probes(PROBES, small_below=0).score(Latent(z, [0], [1]), data, data.test, regressor=who)  # pyright: ignore
        for who in (oracle, None)
    )
    assert with_it["probe/m_h/r2"] >= with_it["probe/m_h/regressor/seen/r2"] > 0.85 > without["probe/m_h/r2"]
    assert with_it["excess/m_h"] > without["excess/m_h"] + 0.2


def test_leaks_on_seen_stars_only_are_not_leakage_of_unseen_ones(random):
    """Where the encoder learnt its stars by heart: seen and unseen latents differ, and the unseen ones count."""
    z, labels = population(random)
    z[:2000, 1] = random.normal(size=2000)
    z[2000:, 1] = labels[2000:, 1]
    data = data_of(labels)
    found = Probes(PROBES, small_below=0).score(Latent(z, [0], [1]), data, data.test, spare=data.validation)  # pyright: ignore
    assert found["probe/m_h/r2"] > 0.95 and found["probe/m_h/seen"] < 0.6 and found["largest_excess"] > 0.3


@pytest.mark.parametrize("n", [240, 1440])
def test_the_control_is_about_zero_at_any_size(random, n):
    """Also at 96 scored stars: labels that were permuted cannot be read."""
    z, labels = population(random, n=n)
    data = data_of(labels)
    found = Probes({}, PROBES, small_below=10**6).score(Latent(z, [0], [1]), data, data.test, spare=data.validation)  # pyright: ignore
    assert all(-0.05 < found[f"probe/{label}/control"] < 0.05 for label in LABELS)


def bare_fit(labels):
    """Stars that nothing is fitted on."""
    nothing = np.full(labels.shape, np.nan)
    stars = Measured(np.arange(len(labels)) + 2**60, np.zeros((len(labels), 1)), labels, nothing, nothing)
    return CrossFit({}, stars, stars)


def test_the_control_is_that_of_the_strongest_probe(random):
    """A weak one reads nothing of permuted labels whatever goes wrong."""
    fitted = []

    class Noted(Ridge):
        def fit(self, X, y, sample_weight=None):
            fitted.append(self.alpha)
            return super().fit(X, y, sample_weight)

    labels = random.normal(size=(200, 2))
    stars = bare_fit(labels).scored
    fit = CrossFit({"weak": Noted(1e6), "strong": Noted(1.0), "weaker": Noted(1e9)}, stars, stars)
    read = {"weak": 0.1 * labels, "strong": 0.9 * labels, "weaker": 0 * labels}
    found = control_scores("val/", LABELS, fit, read, 0)
    assert set(fitted) == {1.0} and set(found) == {"val/probe/teff/control", "val/probe/m_h/control"}


def test_the_scores_of_a_label_by_hand(random, monkeypatch):
    """Also of one that some stars lack; the seen one is the best of those that were fitted on seen stars."""
    monkeypatch.setattr("spectangle.evaluation.probe_scores.bootstrap_r2", lambda *_: np.linspace(0, 1, 1001)[None])
    truth = random.normal(size=(200, 1))
    truth[:20] = np.nan
    good, poor, none = (truth + scatter * random.normal(size=(200, 1)) for scatter in (0.3, 1.0, 9.0))
    fit, known = bare_fit(truth), slice(20, None)
    scores = label_scores("val/", ["m_h"], fit, {"a": np.nan_to_num(poor)}, {"a/seen": none, "b/seen": good}, 5, 0)
    assert scores["val/probe/m_h/stars"] == 180
    for name, read in (("a", poor), ("a/seen", none), ("b/seen", good)):
        assert scores[f"val/probe/m_h/{name}/r2"] == pytest.approx(r2(read[known, 0], truth[known, 0]))
    assert scores["val/probe/m_h/seen"] == scores["val/probe/m_h/b/seen/r2"] > 0.85
    assert scores["val/probe/m_h/r2"] > 0.85
    assert [scores[f"val/probe/m_h/r2_{end}"] for end in ("low", "high")] == pytest.approx([0.025, 0.975])


def test_the_run_s_own_regressor_is_printed_if_it_reads_more_and_not_if_it_reads_less(random):
    """Stacking weighs it about the mean: an offset costs it there what it costs it alone."""
    truth = random.normal(size=(200, 1))
    good, poor = (truth + scatter * random.normal(size=(200, 1)) for scatter in (0.5, 5.0))
    more, less = (
        label_scores("", ["m_h"], bare_fit(truth), {"ridge": other}, {"regressor/seen": own}, 5, 0)
        for other, own in ((poor, good), (good, poor))
    )
    for scores in (more, less):
        assert scores["probe/m_h/r2"] >= max(0.6, scores["probe/m_h/regressor/seen/r2"])


def test_excesses_are_told_of_each_label_and_of_the_worst_class(monkeypatch, caplog):
    """An attribute is as bad as its class that leaks most, and one floor with unknown errors makes all upper bounds."""
    leaks = {
        1: Leak(0.1, 0.2, 0.15, 0.25, 0.12, False, 50),
        2: Leak(0.3, 0.01, 0.0, 0.02, 0.31, False, 40),
        3: Leak(0.4, 0.05, 0.04, 0.06, 0.41, True, 40),
    }
    monkeypatch.setattr("spectangle.evaluation.probe_scores.leaks", lambda *_: leaks)
    found = excess_scores("val/", bare_fit(np.ones((3, 5))), {}, [0], {"m_h": [1], "survey": [2, 3], "age": [4]}, 5, 0)
    expected = {"excess_stars": 50, "floor": 0.1, "floor_decoder": 0.12, "excess": 0.2, "excess_low": 0.15}
    expected = {f"val/{name}/m_h": value for name, value in (expected | {"excess_high": 0.25}).items()}
    assert expected.items() <= found.items() and "no excess of age" in caplog.text
    assert [found[f"val/{name}/survey"] for name in ("excess", "floor", "excess_high")] == [0.05, 0.4, 0.06]
    assert found["val/largest_excess"] == 0.2 and found["val/excess_is_upper_bound"] == 1
    assert not [name for name in found if "age" in name]


def test_classes_are_columns_behind_the_labels_and_rare_ones_are_read_as_well(random, monkeypatch):
    """Nine stars of ten are of one class; a probe that tells them apart a little tells the rare one from it."""
    code = (np.arange(400) % 10 == 0).astype(np.float32)
    code[:40] = np.nan
    data = SimpleNamespace(labels=LABELS, classes={"survey": ["a", "b"]}, attributes=("survey",))
    stars = data_of(random.normal(size=(400, 2)).astype(np.float32)).train
    stars.rows, stars.source_id, stars.attributes = (
        np.arange(400),
        np.arange(400) + 2**60,
        torch.from_numpy(code[:, None]),
    )
    stars.labels, stars.label_errors = torch.zeros(400, 2), np.full((400, 2), 0.1)
    stars.true_labels = np.full((400, 2), np.nan)
    found = measured(stars, np.zeros((400, 1)), data)  # pyright: ignore
    assert target_columns(data) == {"teff": [0], "m_h": [1], "survey": [2, 3]}  # pyright: ignore
    np.testing.assert_array_equal(found.labels[:, 3], code)
    np.testing.assert_array_equal(found.labels[:, 2], 1 - code)
    np.testing.assert_array_equal(found.true_labels[:, 3], code)
    assert (found.label_errors[:, :2] == 0.1).all() and not np.nansum(found.label_errors[:, 2:])
    fit = CrossFit({}, found, found)
    hint = 0.05 + 0.3 * np.nan_to_num(code)
    hints = {"ridge": np.stack([hint, hint, 1 - hint, hint], axis=1)}
    usual = {"ridge": np.zeros((400, 4))}
    for read, expected in ((hints, 1.0), (usual, 0.5)):
        scores = attribute_scores("probe/survey", fit, read, [2, 3], 20, 0)
        assert scores["probe/survey/balanced_accuracy"] == pytest.approx(expected)
        assert scores["probe/survey/chance"] == 0.5 and scores["probe/survey/stars"] == 360
    draws = iter(np.linspace(0, 1, 1002))
    monkeypatch.setattr("spectangle.evaluation.probe_scores.balanced_accuracy", lambda *_: next(draws))
    scores = attribute_scores("probe/survey", fit, hints, [2, 3], 1001, 0)
    ends = [scores[f"probe/survey/balanced_accuracy_{end}"] for end in ("low", "high")]
    assert ends == pytest.approx([0.025, 0.975], abs=2e-3)


def test_a_warning_says_when_a_label_is_hidden_not_removed():
    metrics = {"probe/m_h/r2": 0.9, "excess/m_h": 0.4}
    model = Latent(None, kept=[0], dropped=[1])
    assert "hidden, not removed" in disagreements(metrics, {"teff": 1.0, "m_h": 0.01}, model)[0]  # pyright: ignore
    assert not disagreements(metrics, {"teff": 1.0, "m_h": 0.5}, model)  # pyright: ignore
    assert not disagreements({"probe/m_h/r2": 0.4, "excess/m_h": 0.01}, {"teff": 1.0, "m_h": 0.01}, model)  # pyright: ignore


@pytest.mark.process
@pytest.mark.parametrize(("kept", "lost"), [LABELS, LABELS[::-1]])
def test_of_a_trained_encoder_they_read_the_kept_label_and_not_the_lost_one(kept, lost, tmp_path):
    """The toy survey's labels are independent of each other: of the lost one nothing is left to read. Kept and lost
    change places, so that it is no property of the labels.
    """
    survey = write_toy_survey(tmp_path / "toy.h5", n=800)
    options = [f"data.path={survey}", f"data.labels=[{kept},{lost}]", f"lambdas.{kept}=-1", f"lambdas.{lost}=1"]
    # probes=quick sets callbacks.probes.coarse
    measured = ["probes=quick", "callbacks.regressor=null", f"hydra.run.dir={tmp_path / 'run'}"]
    run_train(*TINY, *options, *measured, "data.batch_size=64")
    found = Run(tmp_path / "run").metrics
    assert found[f"probe/{kept}/r2"] > 0.6 and found[f"probe/{lost}/r2"] < 0.2
    assert found[f"probe/{kept}/r2_low"] > found[f"probe/{lost}/r2_high"]
    assert -0.1 < found[f"excess/{lost}"] == found["largest_excess"] < 0.2 and f"excess/{kept}" not in found
    said = (tmp_path / "run" / "train.log").read_text()
    assert "these probes are for first looks" in said and "No labels were read" in said
