"""Networks: the bank of discriminators is the same as single ones, one by one."""

import pytest
import torch
from torch.nn import functional as F

from spectangle.errors import SpectangleError
from spectangle.model.networks import Decoder, DiscriminatorBank, Encoder


def test_the_paper_s_architecture_has_the_paper_s_sizes():
    encoder = Encoder(800, [512, 256], 25, "linear", "none")
    decoder = Decoder(25, 4, [512, 256], 800, batch_norm=False)
    shapes = [
        tuple(layer.weight.shape)
        for network in (encoder, decoder)
        for layer in network.layers
        if hasattr(layer, "weight")
    ]
    assert shapes == [(512, 800), (256, 512), (25, 256), (256, 29), (512, 256), (800, 512)]


@pytest.mark.parametrize("extra", [False, True])
def test_the_bank_equals_single_discriminators(extra):
    bank = DiscriminatorBank(6, [4, 4, 4], [8, 5])
    z = torch.randn(3, 10, 6) if extra else torch.randn(10, 6)
    logits = bank(z)
    for d in range(3):
        h = z[d] if extra else z
        for layer in range(3):
            h = F.linear(h, bank.weights[layer][d].T, bank.biases[layer][d, 0])
            h = F.relu(h) if layer < 2 else h
        assert torch.allclose(logits[d], h, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"kind": "conv"}, {"batch_norm": True}, {"kind": "conv", "batch_norm": True}])
def test_discriminators_share_nothing(options):
    bank = DiscriminatorBank(6, [3, 5], [8], **options)
    z = torch.randn(12, 6)
    bank(z)[0, :, :3].square().sum().backward()
    for weight in [*bank.weights, *bank.biases]:
        assert weight.grad[0].abs().sum() > 0
        assert weight.grad[1].abs().sum() == 0


def test_spare_bins_get_no_probability():
    logits = DiscriminatorBank(6, [3, 5], [8])(torch.randn(7, 6))
    probability = logits.softmax(-1)
    assert probability[0, :, 3:].sum() == 0 and torch.allclose(probability.sum(-1), torch.ones(2, 7))


@pytest.mark.parametrize(
    ("activation", "norm", "low", "high"),
    [("sigmoid", "none", 0, 1), ("linear", "batch", -10, 10), ("sigmoid", "batch", 0, 1)],
)
def test_latent_activation_and_norm(activation, norm, low, high):
    z = Encoder(20, [16], 5, activation, norm)(torch.randn(64, 20))
    assert low <= z.min() and z.max() <= high
    if (activation, norm) == ("linear", "batch"):
        assert torch.allclose(z.std(0, correction=0), torch.ones(5), atol=1e-2)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Encoder(8, [4], 0, "linear", "none"), "at least 1 dimension"),
        (lambda: Encoder(8, [4], 2, "tanh", "none"), "linear or sigmoid"),
        (lambda: Encoder(8, [4], 2, "linear", "layer"), "batch or none"),
        (lambda: DiscriminatorBank(8, [3], [4], kind="rnn"), "mlp or conv"),
    ],
)
def test_unknown_options_are_refused(build, sentence):
    with pytest.raises(SpectangleError, match=sentence):
        build()
