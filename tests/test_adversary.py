"""The adversary: who is asked what, and who learns."""

import pytest
import torch

from spectangle.adversary import Adversary
from spectangle.errors import SpectangleError

LABELS = ["teff", "logg", "m_h"]
LAMBDAS = {"teff": -1e-3, "logg": 2e-3, "m_h": 0.0}


def build(lambdas=LAMBDAS, bins=None, **options):
    torch.manual_seed(0)
    adversary = Adversary(LABELS, 6, lambdas, bins or {"count": 4}, **options)
    labels = torch.randn(300, 3)
    adversary.calibrate(labels)
    return adversary, torch.randn(300, 6), labels, adversary.classify(labels)


def test_signs_say_who_is_kept_and_who_is_dropped():
    adversary, *_ = build()
    assert (adversary.kept, adversary.dropped) == ([0], [1])


def test_penalty_is_the_second_term_of_eq4():
    adversary, z, y, classes = build(objective="neg_ce")
    cross_entropy = adversary.cross_entropy(z, y, classes)
    expected = -sum(value * cross_entropy[i] for i, value in enumerate(LAMBDAS.values()))
    assert torch.allclose(adversary.penalty(z, y, classes, progress=0.5), expected)


def test_entangled_labels_may_have_more_bins():
    adversary, *_ = build(bins={"count": 4, "entangled_count": 9})
    assert adversary.bins.counts == [9, 4, 4]


@pytest.mark.parametrize("condition_on", ["none", "kept", "residual"])
def test_kept_labels_are_shown_to_discriminators_of_dropped_labels_only(condition_on):
    adversary, z, y, classes = build(condition_on=condition_on)
    y = y.clone().requires_grad_()
    for i, sees in enumerate([False, condition_on == "kept", False]):
        gradient = torch.autograd.grad(adversary.cross_entropy(z, y, classes)[i], y, allow_unused=True)[0]
        shown = torch.zeros(3) if gradient is None else gradient.abs().sum(0)
        assert (shown[0] > 0) == sees
        assert shown[1:].sum() == 0


def test_residual_classes_are_those_of_what_is_unexplained():
    torch.manual_seed(0)
    labels = torch.randn(2000, 3)
    labels[:, 1] = 3 * labels[:, 0] + 0.5 * labels[:, 2]
    adversary = Adversary(LABELS, 6, LAMBDAS, {"count": 4}, condition_on="residual")
    adversary.calibrate(labels)
    classes = adversary.classify(labels).float()
    correlation = torch.corrcoef(torch.stack([classes[:, 1], labels[:, 0], labels[:, 2]]))[0]
    assert abs(correlation[1]) < 0.15 and correlation[2] > 0.7


def test_an_ensemble_counts_as_one_discriminator():
    adversary, z, y, classes = build(ensemble=3)
    assert len(adversary.weights) == 9 and adversary.weights.sum() == pytest.approx(sum(LAMBDAS.values()))
    assert adversary.by_name(adversary.cross_entropy(z, y, classes)).shape == (3,)


def test_a_joint_discriminator_has_the_combinations_that_occur():
    adversary, z, y, classes = build({"teff": 1e-3, "logg": 1e-3, "m_h": 0.0}, discriminators="joint")
    combinations = {tuple(row) for row in adversary.bins(y)[:, :2].tolist()}
    assert adversary.n_classes == [len(combinations)] and classes.max() == len(combinations) - 1
    assert adversary.cross_entropy(z, y, classes).shape == (1,)
    assert adversary.classify(torch.tensor([[99.0, -99.0, 0.0]])).item() in range(-1, len(combinations))


def test_no_lambda_means_that_discriminators_only_watch():
    adversary, z, y, classes = build({}, discriminator_steps=5)
    assert adversary.steps == 1
    assert adversary.penalty(z, y, classes, 1.0) == 0


def test_plateau_raises_lambda_only_when_the_loss_stalls():
    adversary, *_ = build(schedule="plateau", plateau_steps=4, plateau_patience=2)
    factors = []
    for loss in (3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0):
        adversary.end_epoch(loss)
        factors.append(float(adversary.factor(0)))
    assert factors == [0, 0, 0, 0.25, 0.25, 0.25, 0.5]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"objective": "hinge"}, "adversary.objective is 'hinge'"),
        ({"condition_on": "all"}, "adversary.condition_on is 'all'"),
        ({"discriminators": "joint"}, "lambdas of one sign"),
        ({"lambdas": {"vmic": 0.1}}, "lambdas names vmic, but the survey's labels are teff, logg, m_h"),
    ],
)
def test_wrong_options_are_refused(options, sentence):
    with pytest.raises(SpectangleError, match=sentence):
        build(**options)


def test_chance_of_a_conditional_discriminator_is_what_the_kept_labels_imply():
    torch.manual_seed(0)
    labels = torch.randn(4000, 3)
    labels[:, 1] = labels[:, 0] + 0.1 * labels[:, 1]
    plain, conditional = (Adversary(LABELS, 6, LAMBDAS, {"count": 4}, condition_on=how) for how in ("none", "kept"))
    plain.calibrate(labels)
    conditional.calibrate(labels)
    assert torch.equal(plain.chance, plain.entropy)
    assert conditional.chance[1] < 0.4 * plain.chance[1]
    assert torch.equal(conditional.chance[[0, 2]], plain.chance[[0, 2]])
