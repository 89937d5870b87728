"""The fitted downstream regressor as a torch network: what reads labels from a latent in one graph with the encoder.

Shapes: B stars, Z latent, K labels.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectangle.errors import SpectangleError
from spectangle.networks import mlp

__all__ = ["Readout"]


class Readout(nn.Module):
    """Standardise a latent [B, Z], pass it through fully connected layers with ReLU, return labels [B, K] in their units.

    Arguments:
        sizes: Widths, Z first and K last.
    """

    def __init__(self, sizes: list[int]):
        super().__init__()
        self.sizes = list(sizes)
        self.layers = mlp(self.sizes)
        self.mean: Tensor
        self.scale: Tensor
        self.label_mean: Tensor
        self.label_scale: Tensor
        for name, size, value in (("mean", sizes[0], 0.0), ("scale", sizes[0], 1.0), ("label_mean", sizes[-1], 0.0), ("label_scale", sizes[-1], 1.0)):
            self.register_buffer(name, torch.full((size,), value))

    def forward(self, z: Tensor) -> Tensor:
        return torch.addcmul(self.label_mean, self.layers((z - self.mean) / self.scale), self.label_scale)

    @classmethod
    def from_regressor(cls, regressor: Any) -> "Readout":
        """Copy the weights of a fitted regressor of :mod:`spectangle.regression`.

        Raises:
            SpectangleError: The regressor is no network of fully connected layers with ReLU.
        """
        try:
            pipeline, labels = regressor.regressor_, regressor.transformer_
            inputs, network = pipeline.steps[0][1], pipeline.steps[-1][1]
            linear = hasattr(network, "coef_")  # ridge: a network of one layer
            weights, biases = ([network.coef_.T], [network.intercept_]) if linear else (network.coefs_, network.intercepts_)
        except AttributeError:
            raise SpectangleError(
                f"The run's regressor is {type(regressor).__name__}; only the networks of regressor=sklearn, torch, small and ridge "
                "can be copied into the model. Train with one of them: python train.py resume=RUN regressor=sklearn."
            ) from None
        if getattr(network, "activation", "relu") != "relu":
            raise SpectangleError(f"The run's regressor has the activation {network.activation}; only relu can be copied into the model.")
        readout = cls([weights[0].shape[0], *(w.shape[1] for w in weights)])
        scale = np.ones_like(inputs.mean_) if inputs.scale_ is None else inputs.scale_
        readout._fill([inputs.mean_, scale, labels.mean_, labels.scale_], weights, biases)
        return readout.eval()

    @torch.no_grad()
    def _fill(self, scalers: list[np.ndarray], weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
        for buffer, values in zip((self.mean, self.scale, self.label_mean, self.label_scale), scalers, strict=True):
            buffer.copy_(torch.from_numpy(np.asarray(values)))
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        for layer, w, b in zip(linear, weights, biases, strict=True):
            layer.weight.copy_(torch.from_numpy(np.asarray(w).T))
            layer.bias.copy_(torch.from_numpy(np.asarray(b)))
