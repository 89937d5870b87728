"""Trained fully connected layers as plain weights and biases: batch normalisation folded into the layer before it."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["folded_layers"]


@torch.no_grad()
def folded_layers(layers: Iterable[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """Weight [n_out, n_in] and bias [n_out] of each linear layer; ReLU belongs between them, dropout does nothing after
    training.
    """
    folded: list[tuple[Tensor, Tensor]] = []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            folded.append((layer.weight, layer.bias))
        elif isinstance(layer, nn.BatchNorm1d):
            folded[-1] = _fold(*folded[-1], layer)
    return folded


def _fold(weight: Tensor, bias: Tensor, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    factor = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        factor = factor * norm.weight
    bias = (bias - norm.running_mean) * factor
    return weight * factor[:, None], bias + norm.bias if norm.affine else bias
