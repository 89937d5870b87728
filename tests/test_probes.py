"""Probes: a planted label is found, a removed one is not, and only a non-linear probe finds a non-linear trace."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from spectangle.metrics import r2
from spectangle.probes import Probes, bootstrap_r2, disagreements, erasure, probe_predictions
from spectangle.regression import TorchMLPRegressor

PROBES = {
    "ridge": Ridge(),
    "mlp": TorchMLPRegressor(hidden=(64, 32), max_iter=60, patience=10),
    "boosting": HistGradientBoostingRegressor(max_iter=60),
    "neighbours": KNeighborsRegressor(20),
}


def scores(z, label):
    half = len(z) // 2
    predictions = probe_predictions(PROBES, z[:half], label[:half, None], z[half:])
    return {name: r2(prediction[:, 0], label[half:]) for name, prediction in predictions.items()}


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_every_probe_finds_a_planted_label(random):
    label = random.normal(size=3000)
    z = random.normal(size=(3000, 6))
    z[:, 2] += 1.5 * label
    assert all(0.5 < score < 0.75 for score in scores(z, label).values())  # the most that can be read is 0.69


def test_no_probe_finds_a_removed_label(random):
    assert all(score < 0.05 for score in scores(random.normal(size=(3000, 6)), random.normal(size=3000)).values())


def test_a_nonlinear_trace_is_found_by_the_mlp_and_missed_by_ridge(random):
    z = random.choice([-1.0, 1.0], size=(3000, 6)) + 0.1 * random.normal(size=(3000, 6))
    found = scores(z, np.sign(z[:, 1]) * np.sign(z[:, 4]))
    assert found["ridge"] < 0.05 and found["mlp"] > 0.9


def test_a_shrunken_trace_is_still_found(random):
    """What hides from a discriminator: a trace a thousand times smaller than the rest."""
    label = random.normal(size=3000)
    z = random.normal(size=(3000, 6))
    z[:, 3] = 1e-3 * label
    assert scores(z, label)["mlp"] > 0.9


def test_erasure_by_hand():
    assert erasure(0.25, 1.0) == 0.75
    assert erasure(1.2, 1.0) == 0 and erasure(-0.3, 0.9) == 1


def test_bootstrap_covers_the_r2_and_is_paired(random):
    truth = random.normal(size=2000)
    close, closer = truth + 0.5 * random.normal(size=2000), truth + 0.49 * random.normal(size=2000)
    draws = bootstrap_r2([close, close, closer], truth, draws=300)
    low, high = np.quantile(draws[0], [0.025, 0.975])
    assert low < r2(close, truth) < high and high - low < 0.1
    assert np.array_equal(draws[0], draws[1])
    assert draws.shape == (3, 300)


class Latent:
    """A model whose latent is what the test wants it to be."""

    def __init__(self, z, kept, dropped):
        self.z, self.labels = z, ("teff", "m_h")
        self.adversary = SimpleNamespace(kept=kept, dropped=dropped)

    def embed(self, flux, labels=None):
        return self.z[flux[:, 0].long().numpy()]


def planted(z, labels, cache=None, **who):
    rows = torch.arange(len(labels))
    stars = [
        SimpleNamespace(flux=rows[part, None].float(), labels=torch.from_numpy(labels[part]).float()) for part in (slice(2000), slice(2000, None))
    ]
    data = SimpleNamespace(train=Sized(stars[0]), test=stars[1], labels=("teff", "m_h"))
    return Probes({"ridge": Ridge(), "mlp": PROBES["mlp"]}, cache).score(Latent(z, **who), data, data.test)


class Sized:
    def __init__(self, stars):
        self.flux, self.labels = stars.flux, stars.labels

    def __len__(self):
        return len(self.labels)


@pytest.mark.parametrize("leaks", [False, True])
def test_excess_is_leakage_beyond_the_population(random, leaks):
    """m_h follows teff in the population: a latent with teff shows it, and has no excess unless it knows more."""
    teff, own = random.normal(size=(2, 4000))
    labels = np.stack([teff, 0.7 * teff + 0.7 * own], axis=1)
    z = np.stack([teff, own if leaks else random.normal(size=4000)], axis=1)
    found = planted(z, labels, kept=[0], dropped=[1])
    assert found["floor/m_h"] == pytest.approx(0.5, abs=0.05)
    assert found["probe/m_h/r2"] > 0.45
    assert found["excess/m_h"] == pytest.approx(0.5 if leaks else 0.0, abs=0.05)
    assert found["excess_low/m_h"] <= found["excess/m_h"] <= found["excess_high/m_h"]
    assert abs(found["probe/m_h/control"]) < 0.05
    assert "excess/teff" not in found


def test_a_warning_says_when_a_label_is_hidden_not_removed():
    metrics = {"probe/m_h/r2": 0.9, "excess/m_h": 0.4}
    model = Latent(None, kept=[0], dropped=[1])
    assert "hidden, not removed" in disagreements(metrics, {"teff": 1.0, "m_h": 0.01}, model)[0]
    assert not disagreements(metrics, {"teff": 1.0, "m_h": 0.5}, model)
    assert not disagreements({"probe/m_h/r2": 0.4, "excess/m_h": 0.01}, {"teff": 1.0, "m_h": 0.01}, model)
