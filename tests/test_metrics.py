"""Metrics against hand-computed values."""

import numpy as np
import pytest

from spectangle.metrics import balanced_accuracy, label_metrics, number, r2, residual_metrics


def test_residual_metrics_by_hand():
    found = residual_metrics(np.array([1.0, 2.0, 3.0, 8.0]), np.array([1.0, 1.0, 3.0, 4.0]))  # residuals 0, 1, 0, 4
    assert found["mae"] == pytest.approx(1.25)
    assert found["mean"] == pytest.approx(1.25)
    assert found["sigma"] == pytest.approx(np.sqrt((0 + 1 + 0 + 16) / 4 - 1.25**2))
    assert found["sigma_mad"] == pytest.approx(1.4826 * 0.5)  # median 0.5, deviations 0.5, 0.5, 0.5, 3.5
    assert found["sigma_abs"] == pytest.approx(found["sigma"])
    assert found["r2"] == pytest.approx(1 - 17 / 6.75)


def test_a_star_without_the_label_counts_nowhere():
    predicted, catalogue = np.array([1.0, 7.0, 3.0, 5.0]), np.array([2.0, np.nan, 3.0, 4.5])
    known = [0, 2, 3]
    assert residual_metrics(predicted, catalogue) == residual_metrics(predicted[known], catalogue[known])
    assert r2(predicted, catalogue) == r2(predicted[known], catalogue[known]) < 1


def test_only_the_mean_and_the_mae_feel_an_offset():
    """Scatter is about the median or the mean: without that, a regressor with an offset would look noisy as well."""
    catalogue, residual = np.arange(5.0), np.array([-3.0, -1.0, 0.5, 1.0, 6.0])
    plain, shifted = (residual_metrics(catalogue + residual + offset, catalogue) for offset in (0, 100))
    assert [plain["sigma_mad"], shifted["sigma_mad"]] == pytest.approx([1.4826 * 1.5] * 2)
    assert plain["sigma_abs"] == pytest.approx(np.abs(residual).std())
    assert shifted["sigma"] == pytest.approx(plain["sigma"]) and shifted["mean"] == pytest.approx(100 + plain["mean"])


def test_a_class_that_no_star_has_is_no_part_of_the_balance():
    assert balanced_accuracy(np.array([0, 0, 2]), np.array([0, 1, 2]), 3) == pytest.approx(0.75)


def test_paths():
    found = label_metrics("test/latent", ["teff", "logg"], np.ones((3, 2)), np.array([[0, 1], [0, 2], [1, 3]]))
    assert found["test/latent/teff/mae"] == pytest.approx(2 / 3)
    assert set(found) == {
        f"test/latent/{label}/{name}"
        for label in ("teff", "logg")
        for name in ("mae", "mean", "sigma", "sigma_mad", "sigma_abs", "r2")
    }


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (5103.4, "K", "5103"),
        (-0.0004, "dex", "-0.000"),
        (12.3456, "km/s", "12.346"),
        (0.0, "Gyr", "0.000"),
        (0.00012345, "solMass", "0.000123"),
        (4603000000.4, "yr", "4603000000"),
        (0.5, "", "0.500"),
        (None, "K", "-"),
        (float("nan"), "Gyr", "-"),
    ],
)
def test_a_number_has_the_digits_of_its_unit(value, unit, text):
    assert number(value, unit) == text
