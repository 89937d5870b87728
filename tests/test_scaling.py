"""Scalers and bins: fitted values by hand, and the edges of the label range."""

import numpy as np
import pytest
import torch

from spectangle.errors import SpectangleError
from spectangle.model.scaling import FluxScaler, LabelBins, LabelScaler, ResidualLabels


@pytest.mark.parametrize("kind", ["global", "pixel", "none"])
def test_flux_scaling_is_undone_by_its_inverse(kind):
    flux = 0.9 + 0.05 * torch.randn(200, 7)
    scaler = FluxScaler(7, kind)
    scaler.fit(flux)
    assert torch.allclose(scaler.inverse(scaler(flux)), flux, atol=1e-6)
    if kind == "none":
        assert torch.equal(scaler(flux), flux)
    else:
        assert scaler(flux).mean(0).abs().max() < 1e-4
        assert scaler(flux).square().mean() == pytest.approx(1, rel=1e-3)


def test_global_scaling_divides_every_pixel_by_the_same_number():
    flux = torch.randn(500, 3) * torch.tensor([0.01, 0.1, 1.0])
    scaler = FluxScaler(3, "global")
    scaler.fit(flux)
    assert len(scaler.scale.unique()) == 1
    assert scaler.unit**2 == pytest.approx(float(flux.var(0, correction=0).mean()), rel=1e-4)


def test_the_unit_of_pixels_with_scales_of_their_own_is_their_root_mean_square():
    scaler = FluxScaler(2, "pixel")
    scaler.fit(torch.tensor([[1.0, 7.0], [-1.0, -7.0]]))
    assert scaler.scale.tolist() == [1, 7] and scaler.unit.item() == pytest.approx(5)


def test_a_constant_label_is_refused_by_name():
    with pytest.raises(SpectangleError, match="Label 'logg' is the same"):
        LabelScaler(["teff", "logg"]).fit(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))


def test_uniform_bins_by_hand():
    bins = LabelBins(["a"], count=5)
    bins.fit(torch.tensor([[0.0], [10.0], [1.9], [2.1]]))
    assert bins.edges.tolist() == [[2, 4, 6, 8]]
    assert bins(torch.tensor([[-99.0], [0.0], [1.99], [2.0], [10.0], [99.0]])).flatten().tolist() == [0, 0, 0, 1, 4, 4]
    assert bins.prior.tolist() == [[0.5, 0.25, 0, 0, 0.25]]  # empty bins stay, with prior zero
    assert bins.entropy.item() == pytest.approx(-(0.5 * np.log(0.5) + 0.5 * np.log(0.25)))


def test_quantile_bins_hold_equal_numbers_of_stars():
    labels = torch.randn(1000, 2) ** 3
    bins = LabelBins(["a", "b"], count=10, strategy="quantile")
    bins.fit(labels)
    assert torch.allclose(bins.prior, torch.full((2, 10), 0.1), atol=2e-3)


def test_labels_may_have_different_numbers_of_bins():
    bins = LabelBins(["a", "b"], count={"a": 3, "b": 6})
    labels = torch.rand(500, 2)
    bins.fit(labels)
    assert bins(labels).max(0).values.tolist() == [2, 5]
    assert bins.prior[0, 3:].sum() == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"count": 1}, "at least 2"),
        ({"strategy": "log"}, "uniform or quantile"),
        ({"count": {"a": 3, "c": 3}}, "differ in \\['b', 'c'\\]"),
    ],
)
def test_wrong_bins_are_refused(options, sentence):
    with pytest.raises(SpectangleError, match=sentence):
        LabelBins(["a", "b"], **options)


def test_residual_labels_keep_only_what_the_kept_labels_do_not_explain():
    random = np.random.default_rng(0)
    kept, own = random.normal(size=(2, 4000))
    labels = np.stack([kept, np.sin(2 * kept) + 0.3 * own], axis=1)
    residual = ResidualLabels(entangled=[0], disentangled=[1]).fit(labels)(labels)
    assert np.array_equal(residual[:, 0], labels[:, 0])
    assert abs(np.corrcoef(residual[:, 1], np.sin(2 * kept))[0, 1]) < 0.1
    assert np.corrcoef(residual[:, 1], own)[0, 1] > 0.95


def test_residual_labels_do_not_learn_their_stars_by_heart():
    """Of a label that does not follow from the kept ones nothing is taken, and the same at each start."""
    labels = np.random.default_rng(0).normal(size=(1000, 2))
    first, again = (ResidualLabels(entangled=[0], disentangled=[1]).fit(labels)(labels)[:, 1] for _ in range(2))
    assert first.std() > 0.9 * labels[:, 1].std() and np.array_equal(first, again)


def test_residual_labels_are_learnt_from_every_star_that_has_the_label():
    """Also from those that lack the kept one, which say what is usual there, or a third one."""
    random = np.random.default_rng(0)
    labels = random.normal(size=(1000, 3))
    labels[::2, 0], labels[::2, 1], labels[5:, 2] = np.nan, 8 + random.normal(size=500), np.nan
    residual = ResidualLabels(entangled=[0], disentangled=[1]).fit(labels)(labels)[:, 1]
    assert abs(residual[::2].mean()) < 0.3 and abs(residual[1::2].mean()) < 0.3
