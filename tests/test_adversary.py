"""The adversary: who is asked what, and who learns."""

import pytest
import torch

from spectangle.errors import SpectangleError
from spectangle.model.adversary import Adversary
from spectangle.model.priors import BinPriors

LABELS = ["teff", "logg", "m_h"]
LAMBDAS = {"teff": -1e-3, "logg": 2e-3, "m_h": 0.0}


def build(lambdas=LAMBDAS, bins=None, **options):
    torch.manual_seed(0)
    adversary = Adversary(LABELS, 6, lambdas, bins or {"count": 4}, **options)
    labels = torch.randn(300, 3)
    adversary.calibrate(labels, labels)
    return adversary, torch.randn(300, 6), labels, adversary.classify(labels)


def test_signs_say_who_is_kept_and_who_is_dropped():
    adversary, *_ = build()
    assert (adversary.entangled, adversary.disentangled) == ([0], [1])


def test_penalty_is_the_second_term_of_eq4():
    adversary, z, y, classes = build(objective="neg_ce")
    cross_entropy = adversary.cross_entropy(z, adversary.ask(y, classes))
    expected = -sum(value * cross_entropy[i] for i, value in enumerate(LAMBDAS.values()))
    assert torch.allclose(adversary.penalty(z, adversary.ask(y, classes)), expected)
    assert torch.allclose(adversary.penalty(z, adversary.ask(y, classes), factor=0.5), 0.5 * expected)


def test_entangled_labels_may_have_more_bins():
    adversary, *_ = build(bins={"count": 4, "entangled_count": 9})
    assert adversary.bins.counts == [9, 4, 4]


@pytest.mark.parametrize("condition_on", ["none", "entangled", "residual"])
def test_kept_labels_are_shown_to_discriminators_of_dropped_labels_only(condition_on):
    adversary, z, y, classes = build(condition_on=condition_on)
    y = y.clone().requires_grad_()
    for i, sees in enumerate([False, condition_on == "entangled", False]):
        gradient = torch.autograd.grad(adversary.cross_entropy(z, adversary.ask(y, classes))[i], y, allow_unused=True)[
            0
        ]
        shown = torch.zeros(3) if gradient is None else gradient.abs().sum(0)
        assert (shown[0] > 0) == sees
        assert shown[1:].sum() == 0


def test_residual_classes_are_those_of_what_is_unexplained():
    torch.manual_seed(0)
    labels = torch.randn(2000, 3)
    labels[:, 1] = 3 * labels[:, 0] + 0.5 * labels[:, 2]
    adversary = Adversary(LABELS, 6, LAMBDAS, {"count": 4}, condition_on="residual")
    adversary.calibrate(labels, labels)
    classes = adversary.classify(labels).float()
    correlation = torch.corrcoef(torch.stack([classes[:, 1], labels[:, 0], labels[:, 2]]))[0]
    assert abs(correlation[1]) < 0.15 and correlation[2] > 0.7


def test_an_ensemble_counts_as_one_discriminator():
    adversary, z, y, classes = build(ensemble=3)
    weights = torch.arange(900.0).view(300, 3)
    asked = adversary.ask(y, classes, weights)
    torch.testing.assert_close(asked.shares, (weights / weights.sum(0)).T.repeat(3, 1))
    assert torch.equal(asked.classes, torch.cat([classes.T] * 3)) and torch.equal(asked.shares[:3], asked.shares[6:])
    assert adversary.by_name(torch.arange(9.0)).tolist() == [3, 4, 5]
    assert len(adversary.weights) == 9 and adversary.weights.sum() == pytest.approx(sum(LAMBDAS.values()))
    assert adversary.by_name(adversary.cross_entropy(z, adversary.ask(y, classes))).shape == (3,)


def test_a_joint_discriminator_has_the_combinations_that_occur():
    adversary, z, y, classes = build({"teff": 1e-3, "logg": 1e-3, "m_h": 0.0}, discriminators="joint")
    combinations = {tuple(row) for row in adversary.bins(y)[:, :2].tolist()}
    assert adversary.n_classes == [len(combinations)] and classes.max() == len(combinations) - 1
    assert adversary.cross_entropy(z, adversary.ask(y, classes)).shape == (1,)
    assert adversary.classify(torch.tensor([[99.0, -99.0, 0.0]])).item() in range(-1, len(combinations))


def test_each_discriminator_sees_the_latent_in_which_its_label_is_fought_or_taught():
    """A sample and its mean: lost labels are lost from the one, all others belong to the other."""
    adversary, z, *_ = build(ensemble=2)
    seen = adversary.views(z, z + 1) - z
    assert [bool((one > 0.5).all()) for one in seen] == [False, True, False] * 2
    assert set(seen.round().unique().tolist()) == {0, 1}


def test_a_joint_discriminator_tells_combinations_apart_and_knows_no_new_ones():
    """Labels with different numbers of bins: two combinations of one number would be one class."""
    adversary = Adversary(
        LABELS, 6, {"teff": 1e-3, "logg": 1e-3}, {"count": {"teff": 2, "logg": 5, "m_h": 3}}, discriminators="joint"
    )
    grid = torch.cartesian_prod(torch.tensor([0.1, 0.9]), torch.linspace(0.1, 0.9, 5), torch.tensor([0.0, 1.0]))
    known = grid[(grid[:, 0] < 0.5) | (grid[:, 1] > 0.2)]
    adversary.calibrate(known, known)
    classes = adversary.classify(grid)[:, 0].view(2, 5, 2)
    assert classes[..., 0].equal(classes[..., 1])  # m_h has no lambda
    assert classes[0, :, 0].tolist() == [0, 1, 2, 3, 4] and classes[1, :, 0].tolist() == [-1, 5, 6, 7, 8]
    one_missing = torch.tensor([[float("nan"), 0.5, 0.5], [0.9, float("nan"), 0.5]])
    assert adversary.classify(one_missing).tolist() == [[-1], [-1]]


@pytest.mark.parametrize("strength", [2e-3, -2e-3])
def test_the_sign_of_a_joint_discriminator_is_that_of_its_labels(strength):
    adversary, z, y, classes = build({"teff": strength, "logg": strength / 2}, discriminators="joint")
    assert adversary.n_classes == [len(torch.unique(adversary.bins(y)[:, :2], dim=0))]  # m_h has no lambda
    weights = torch.rand(300, 3)
    asked = adversary.ask(y, classes, weights)
    torch.testing.assert_close(asked.shares[0], weights.mean(1) / weights.mean(1).sum())
    loss = adversary.cross_entropy(z, asked).item()
    assert adversary.penalty(z, asked).item() == pytest.approx(-strength * loss, rel=1e-4)


def test_a_star_without_the_label_has_no_share_in_what_is_asked():
    adversary, z, y, classes = build(entangle_with="regression")
    classes[::3] = -1
    asked = adversary.ask(y, classes)
    assert not asked.shares[:, ::3].any() and asked.shares.sum(1).tolist() == pytest.approx([1, 1, 1])


def test_chance_of_a_label_that_is_regressed_is_that_of_all_stars_that_have_it():
    """The likelihood of the median and mean deviation of the stars; those without the label have a guess that is no
    label.
    """
    torch.manual_seed(0)
    labels = torch.randn(2000, 3).exp()
    labels[::4, 0] = float("nan")
    told = labels.nan_to_num(50.0)
    adversary = Adversary(LABELS, 6, LAMBDAS, {"count": 4}, entangle_with="regression", incomplete=["teff"])
    adversary.calibrate(labels, told)
    known = labels[:, 0][torch.isfinite(labels[:, 0])]
    scale = (known - known.median()).abs().mean()
    expected = -torch.distributions.Laplace(known.median(), scale).log_prob(known).mean()
    assert float(adversary.chance[0]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("condition_on", ["entangled", "residual"])
def test_what_a_checkpoint_does_not_keep_is_recalled(condition_on):
    """Residuals, and what chance knows: a resumed training asks what the uninterrupted one asked."""
    adversary, z, y, classes = build(condition_on=condition_on, objective="capped")
    labels = y
    other = Adversary(LABELS, 6, LAMBDAS, {"count": 4}, condition_on=condition_on, objective="capped")
    other.load_state_dict(adversary.state_dict())
    assert not other.calibrated
    other.recall(labels, labels)
    assert torch.equal(other.classify(labels), classes) and torch.equal(other.chance, adversary.chance)
    assert torch.equal(other.penalty(z, other.ask(y, classes)), adversary.penalty(z, adversary.ask(y, classes)))


def test_no_lambda_means_that_discriminators_only_watch():
    adversary, z, y, classes = build({}, discriminator_steps=5)
    assert adversary.steps == 1
    assert adversary.penalty(z, adversary.ask(y, classes), 1.0) == 0


def test_plateau_raises_lambda_only_when_the_loss_stalls():
    adversary, *_ = build(schedule="plateau", plateau_steps=4, plateau_patience=2)
    factors = []
    for loss in (3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, *[1.0] * 9):
        adversary.end_epoch(loss)
        factors.append(float(adversary.factor(0)))
    assert factors == [0, 0, 0, 0.25, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, *[1] * 7]


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
    plain, conditional = (
        Adversary(LABELS, 6, LAMBDAS, {"count": 4}, condition_on=how) for how in ("none", "entangled")
    )
    plain.calibrate(labels, labels)
    conditional.calibrate(labels, labels)
    assert torch.allclose(plain.chance, plain.entropy, atol=1e-6)
    assert conditional.chance[1] < 0.4 * plain.chance[1]
    assert torch.allclose(conditional.chance[[0, 2]], plain.chance[[0, 2]])


def test_a_cell_of_kept_labels_rules_out_nothing_that_other_stars_are():
    """Its shares are those of its stars and of one more that is drawn from everyone."""
    labels, bins = torch.randn(60, 1), torch.tensor([[0, 2]] * 20 + [[0, 1]] * 30 + [[-1, 1]] * 10)  # ten lack it
    everyone = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])
    shares = BinPriors(everyone, [True, False]).fit(labels, bins)(labels[:7])  # one cell
    assert shares[0].tolist() == [pytest.approx([50.5 / 51, 0.25 / 51, 0.25 / 51])] * 7
    assert torch.equal(shares[1], everyone[1].expand(7, -1))


@pytest.mark.parametrize("objective", ["capped", "uniform", "flipped"])
@pytest.mark.parametrize("condition_on", ["none", "entangled", "residual"])
@pytest.mark.parametrize("loss", ["categorical", "binary"])
def test_the_encoder_gains_nothing_past_the_chance_of_loss_and_condition(objective, condition_on, loss):
    """A discriminator that knows what it can know without the latent is at chance: no other answer is better for the
    encoder.
    """
    torch.manual_seed(0)
    labels = torch.randn(6000, 3)
    labels[:, 1] = labels[:, 0] + 0.5 * labels[:, 1]
    adversary = Adversary(LABELS, 6, LAMBDAS, {"count": 4}, condition_on=condition_on, loss=loss, objective=objective)
    y = (labels - labels.mean(0)) / labels.std(0)
    adversary.calibrate(labels, y)
    classes = adversary.classify(labels)
    prior = adversary.priors(y[:, adversary.entangled])

    def outcome(logits):
        adversary.bank = lambda inputs: logits.clone()
        torch.manual_seed(1)
        z, questions = torch.zeros(6000, 6), adversary.ask(y, classes)
        return float(adversary.penalty(z, questions)), adversary.cross_entropy(z, questions)

    adversary._modules.pop("bank")
    best, at_chance = outcome(prior.clamp(min=1e-9).log())
    assert torch.allclose(at_chance, adversary.chance, rtol=0.08)  # chance leaves each star out of its own cell
    kept_loss = at_chance[0]
    for wrong in (torch.zeros_like(prior), prior.roll(1, -1).clamp(min=1e-4).log(), prior.clamp(min=1e-9).log() * 2):
        wrong[0] = prior[0].log()
        worse, loss_of_wrong = outcome(wrong)
        assert torch.isclose(loss_of_wrong[0], kept_loss)
        if objective == "capped":
            assert worse == pytest.approx(best, rel=1e-4)  # confidently wrong gains nothing
        elif objective == "uniform":
            assert worse > best
    knows = torch.nn.functional.one_hot(classes.T, 4) * 6.0
    knows[0] = prior[0].log()
    assert outcome(knows)[0] > best


def test_chance_of_the_binary_loss_is_not_the_entropy():
    plain, binary = (build(loss=loss)[0] for loss in ("categorical", "binary"))
    assert (binary.chance > 1.3 * plain.chance).all()


def test_an_entangled_label_may_be_regressed():
    adversary, z, y, classes = build(
        entangle_with="regression", bins={"count": 4, "entangled_count": 9}, condition_on="entangled", ensemble=2
    )
    assert adversary.bank.n_bins == [2, 4, 4] * 2
    losses = adversary.cross_entropy(z, adversary.ask(y, classes))
    assert torch.isfinite(losses).all() and losses.shape == (6,)
    outputs = adversary.bank(adversary._inputs(z, adversary.ask(y, classes)))[0]
    laplace = torch.distributions.Laplace(outputs[:, 0], outputs[:, 1].exp())
    assert float(losses[0]) == pytest.approx(-float(laplace.log_prob(y[:, 0]).mean()), abs=0.02)  # smooth near zero
    gradient = torch.autograd.grad(adversary.penalty(z.requires_grad_(), adversary.ask(y, classes), 1.0), z)[0]
    assert torch.isfinite(gradient).all()


def test_all_lambdas_are_scaled_together():
    adversary, *_ = build(lambda_scale=10.0)
    assert adversary.lambdas == pytest.approx([-1e-2, 2e-2, 0.0])
    adversary, *_ = build(lambda_scale=10.0, entangled_scale=3.0)
    assert adversary.lambdas == pytest.approx([-3e-2, 2e-2, 0.0])
