"""Losses: hand-computed values, and what each adversarial objective rewards."""

import math

import pytest
import torch
from omegaconf import OmegaConf

from spectangle.errors import SpectangleError
from spectangle.model.losses import (
    OBJECTIVES,
    adversarial_loss,
    cross_entropy,
    decay_factor,
    label_likelihood,
    lambda_factor,
    star_shares,
    training_progress,
)
from spectangle.packs.alone import why_alone

PRIOR = torch.tensor([[0.7, 0.2, 0.1]])


def logits_of(probability, n=1000):
    return torch.tensor(probability).log().expand(1, n, -1).clone()


def drawn(n=1000):
    return torch.multinomial(PRIOR[0], n, replacement=True, generator=torch.Generator().manual_seed(0))[None]


def test_cross_entropy_by_hand():
    logits = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]).log()
    bins = torch.tensor([[0, 2]])
    assert cross_entropy(logits, bins).item() == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)
    binary = -(math.log(0.5) + 2 * math.log(0.75) + math.log(0.8) + 2 * math.log(0.9)) / 2  # eq. 2 as printed
    assert cross_entropy(logits, bins, "binary").item() == pytest.approx(binary, rel=1e-5)


def test_unknown_combinations_do_not_count():
    logits = torch.randn(1, 4, 3)
    assert torch.allclose(
        cross_entropy(logits, torch.tensor([[0, -1, 2, -1]])), cross_entropy(logits[:, [0, 2]], torch.tensor([[0, 2]]))
    )


def test_chance_is_the_entropy_of_the_bins_not_log_n():
    bins = torch.arange(10).repeat_interleave(torch.tensor([7, 2, 1, 0, 0, 0, 0, 0, 0, 0]))[None, :10]
    entropy = -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1))
    assert cross_entropy(logits_of([0.7, 0.2, 0.1], 10), bins).item() == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_punishes_a_discriminator_that_knows(objective):
    bins = drawn()
    knows = torch.nn.functional.one_hot(bins, 3).float() * 8
    assert adversarial_loss(knows, bins, PRIOR, objective) > adversarial_loss(
        logits_of([0.7, 0.2, 0.1]), bins, PRIOR, objective
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_that_draws_trains_in_no_pack(objective):
    """The runs of a pack would draw one after the other from one generator."""
    before = torch.get_rng_state()
    adversarial_loss(logits_of([0.7, 0.2, 0.1]), drawn(), PRIOR, objective)
    draws = not torch.equal(before, torch.get_rng_state())
    reason = why_alone(OmegaConf.create({"adversary": {"objective": objective}, "trainer": {"precision": "32-true"}}))
    assert draws == (reason is not None), f"packs/alone.py must name {objective} if, and only if, it draws"


def test_only_eq4_rewards_a_confidently_wrong_discriminator():
    bins = drawn()
    wrong, chance = torch.nn.functional.one_hot((bins + 1) % 3, 3).float() * 8, logits_of([0.7, 0.2, 0.1])
    gain = {
        o: (adversarial_loss(chance, bins, PRIOR, o) - adversarial_loss(wrong, bins, PRIOR, o)).item()
        for o in ("neg_ce", "capped", "uniform")
    }
    assert gain["neg_ce"] > 1
    assert gain["capped"] == pytest.approx(0, abs=0.05)
    assert gain["uniform"] < 0


def test_uniform_is_least_at_the_prior():
    bins = drawn()
    at_prior = adversarial_loss(logits_of([0.7, 0.2, 0.1]), bins, PRIOR, "uniform")
    for other in ([0.6, 0.3, 0.1], [0.8, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3]):
        assert adversarial_loss(logits_of(other), bins, PRIOR, "uniform") > at_prior


@pytest.mark.parametrize("kind", ["categorical", "binary"])
def test_a_uniform_aim_is_the_cross_entropy_of_bins_drawn_from_the_prior(kind):
    torch.manual_seed(0)
    logits, bins = torch.randn(1, 6, 3), torch.zeros(1, 6, dtype=torch.int64)
    expected = sum(share * cross_entropy(logits, bins + c, kind) for c, share in enumerate(PRIOR[0]))
    torch.testing.assert_close(adversarial_loss(logits, bins, PRIOR, "uniform", kind), expected)


def test_the_cap_is_of_the_kind_of_the_loss():
    """Chance of the binary loss is above the entropy: capped at that, a discriminator that knows would be free."""
    bins = torch.arange(3).repeat(10)[None]
    logits, prior = torch.nn.functional.one_hot(bins, 3).float() * 0.5, torch.full((1, 3), 1 / 3)
    knows = cross_entropy(logits, bins, "binary")
    assert math.log(3) < knows < cross_entropy(torch.zeros(1, 30, 3), bins, "binary")
    torch.testing.assert_close(adversarial_loss(logits, bins, prior, "capped", "binary"), -knows)


def test_a_flipped_bin_is_never_the_true_one():
    """Of two bins the wrong one is the other, however seldom it is."""
    torch.manual_seed(0)
    bins, logits = torch.randint(0, 2, (1, 200)), torch.randn(1, 200, 2)
    flipped = adversarial_loss(logits, bins, torch.tensor([[0.9, 0.1]]), "flipped")
    torch.testing.assert_close(flipped, cross_entropy(logits, 1 - bins))


def test_a_star_that_does_not_count_has_no_share_whatever_its_weight():
    known, weights = torch.tensor([[True, False, True], [False] * 3]), torch.tensor([[3.0, 9.0, 1.0], [1.0] * 3])
    assert star_shares(known, weights).tolist() == [[0.75, 0, 0.25], [0, 0, 0]]
    assert star_shares(known).tolist() == [[0.5, 0, 0.5], [0, 0, 0]]


def test_a_scale_does_not_shrink_without_end():
    """Few stars that are learnt by heart: below 0.05 standard deviations, more certainty is worth nothing."""
    outputs, labels = torch.zeros(1, 5, 2), torch.zeros(1, 5)
    outputs[..., 1] = -9.0
    assert label_likelihood(outputs, labels).item() == pytest.approx(math.log(2 * 0.05))


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", (1, 1, 1)),
        ("linear", (0, 1, 1)),
        ("dann", (0, 2 / (1 + math.exp(-5)) - 1, 2 / (1 + math.exp(-10)) - 1)),
    ],
)
def test_schedules_by_hand(schedule, values):
    assert tuple(lambda_factor(schedule, p, warmup=0.5) for p in (0, 0.5, 1)) == pytest.approx(values)


def test_progress_counts_batches_and_lambda_stays_where_it_has_grown_to():
    assert training_progress(0, 0, 4, 10) == 0 and training_progress(2, 3, 4, 10) == pytest.approx(0.275)
    assert lambda_factor("linear", 0.9, warmup=0.3) == 1


def test_a_rate_falls_to_its_end_along_a_cosine():
    assert [decay_factor(0.2, p) for p in (0, 0.5, 1)] == pytest.approx([1, 0.6, 0.2])
    assert decay_factor(1.0, 0.7) == 1


def test_unknown_names_are_refused():
    for call in (
        lambda: lambda_factor("cosine", 0.5),
        lambda: cross_entropy(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long), "mse"),
        lambda: adversarial_loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=torch.long), PRIOR, "hinge"),
    ):
        with pytest.raises(SpectangleError, match="must be"):
            call()
