"""The fitted downstream regressor as a torch network: what reads labels from a latent in one graph with the encoder.

Shapes: B stars, Z latent, K labels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor, nn

from spectangle.errors import SpectangleError
from spectangle.model.networks import mlp

__all__ = ["Readout"]


class Readout(nn.Module):
    """Read labels [B, K] in their units from a latent [B, Z], by one network or several, each for some of the labels.

    Arguments:
        parts: Options of each :class:`ReadoutPart`, and ``columns``: which labels it reads (all of them by default).
    """

    def __init__(self, parts: Sequence[Mapping[str, Any]]):
        super().__init__()
        self.config = [dict(part) for part in parts]
        self.parts = nn.ModuleList(
            ReadoutPart(**{key: value for key, value in part.items() if key != "columns"}) for part in parts
        )
        columns = [column for part in parts for column in part.get("columns", range(part["sizes"][-1]))]
        self.order = [columns.index(k) for k in range(len(columns))]

    @property
    def scale(self) -> Tensor:
        """Standard deviation of each dimension of the latent [Z]."""
        return self._parts[0].scale

    @property
    def label_mean(self) -> Tensor:
        """Mean of each label [K] of the stars that it was fitted on."""
        return torch.cat([part.label_mean for part in self._parts])[self.order]

    @property
    def label_scale(self) -> Tensor:
        """Standard deviation of each label [K]."""
        return torch.cat([part.label_scale for part in self._parts])[self.order]

    @property
    def _parts(self) -> list["ReadoutPart"]:
        return list(self.parts)  # pyright: ignore[reportReturnType]  # a ModuleList holds modules of any kind

    def forward(self, z: Tensor) -> Tensor:
        return self.read(z, [part.layers for part in self._parts])

    def read(self, z: Tensor, layers: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        """The same with other ``layers`` of each part, which do the same."""
        labels = [part.read(z, own) for part, own in zip(self._parts, layers, strict=True)]
        return labels[0] if len(labels) == 1 else torch.cat(labels, dim=1)[:, self.order]

    def check_copied(self, what: str) -> None:
        """Refuse what needs the regressor as networks where it is none; it is.

        Arguments:
            what: A clause on what cannot be done without them.
        """

    @classmethod
    def from_regressor(cls, regressor: Any) -> "Readout":
        """Copy the weights of a fitted regressor of :mod:`spectangle.evaluation.regressors`.

        Raises:
            SpectangleError: The regressor is no network of fully connected layers with ReLU.
        """
        fitted = getattr(regressor, "groups_", [(None, regressor)])
        config, buffers = zip(*(_copied(one) for _, one in fitted), strict=True)
        for part, (columns, _) in zip(config, fitted, strict=True):
            part |= {} if columns is None else {"columns": [int(column) for column in columns]}
        readout = cls(config)
        for part, (values, weights, biases) in zip(readout._parts, buffers, strict=True):
            part.fill(values, weights, biases)
        return readout.eval()


class ReadoutPart(nn.Module):
    """Standardise a latent [B, Z], pass it through fully connected layers with ReLU, return labels [B, K] in their
    units.

    With ``centres``, the mean of those layers and of a sum over Gaussians at S centres (support vector machines).

    Arguments:
        sizes: Widths, Z first and K last.
        centres: S, 0 for none.
    """

    def __init__(self, sizes: Sequence[int], centres: int = 0):
        super().__init__()
        self.n_centres = centres
        self.layers = mlp(list(sizes))
        self.mean: Tensor
        self.scale: Tensor
        self.label_mean: Tensor
        self.label_scale: Tensor
        for name, size, value in (
            ("mean", sizes[0], 0.0),
            ("scale", sizes[0], 1.0),
            ("label_mean", sizes[-1], 0.0),
            ("label_scale", sizes[-1], 1.0),
        ):
            self.register_buffer(name, torch.full((size,), value))
        self.centres: Tensor
        self.weights: Tensor
        self.offset: Tensor
        self.gamma: Tensor
        if centres:
            shapes = {
                "centres": (centres, sizes[0]),
                "weights": (centres, sizes[-1]),
                "offset": (sizes[-1],),
                "gamma": (),
            }
            for name, shape in shapes.items():
                self.register_buffer(name, torch.zeros(shape))

    def read(self, z: Tensor, layers: Callable[[Tensor], Tensor]) -> Tensor:
        """Labels [B, K], by ``layers`` that do what its own do."""
        z = (z - self.mean) / self.scale
        labels = layers(z)
        if self.n_centres:
            labels = (labels + self._machines(z.double()).float() + self.offset) / 2
        return torch.addcmul(self.label_mean, labels, self.label_scale)

    def _machines(self, z: Tensor) -> Tensor:
        """The sum over Gaussians [B, K] at standardised latents [B, Z], both in double precision.

        Thousands of weights of both signs, up to C each, cancel to a label of order 1: in single precision some 1e-5 of
        its standard deviation is left to the order of the sum, which differs between torch, onnxruntime and machines.
        """
        centres = self.centres.double()  # products, not square(): ONNX has Pow, which no converter takes to old opsets
        square = (z * z).sum(1, keepdim=True) + (centres * centres).sum(1) - 2 * z @ centres.T
        return torch.exp(-self.gamma.double() * square) @ self.weights.double()

    @torch.no_grad()
    def fill(self, buffers: Mapping[str, np.ndarray], weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
        """Copy buffers by name, weights [n_in, n_out] and biases [n_out] of each layer."""
        for name, values in buffers.items():
            getattr(self, name).copy_(torch.from_numpy(np.asarray(values)))
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        for layer, w, b in zip(linear, weights, biases, strict=True):
            layer.weight.copy_(torch.from_numpy(np.asarray(w).T))
            layer.bias.copy_(torch.from_numpy(np.asarray(b)))


def _copied(regressor: Any) -> tuple[dict[str, Any], tuple[dict[str, np.ndarray], list, list]]:
    """Options of the part that a fitted regressor becomes, and what to fill it with."""
    try:
        pipeline, labels = regressor.regressor_, regressor.transformer_
        inputs, fitted = pipeline.steps[0][1], pipeline.steps[-1][1]
        machines = getattr(fitted, "machines_", [])
        weights, biases = _layers(fitted)
    except AttributeError:
        raise SpectangleError(
            f"The run's regressor is {type(regressor).__name__}; only the networks of regressor=averaged, "
            "sklearn, torch, small and ridge can be copied into the model. Train a run with one of them: "
            "regressor=averaged."
        ) from None
    if getattr(fitted, "activation", "relu") != "relu":
        raise SpectangleError(
            f"The run's regressor has the activation {fitted.activation}; only relu can be copied into the model."
        )
    kernel = _kernel(machines)
    scale = np.ones_like(inputs.mean_) if inputs.scale_ is None else inputs.scale_
    scalers = {"mean": inputs.mean_, "scale": scale, "label_mean": labels.mean_, "label_scale": labels.scale_}
    sizes = [int(weights[0].shape[0]), *(int(w.shape[1]) for w in weights)]
    return {"sizes": sizes, "centres": len(kernel.get("centres", ()))}, (scalers | kernel, weights, biases)


def _layers(fitted: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights [n_in, n_out] and biases [n_out] of a fitted regressor: a network, ridge as one of one layer, the mean of
    networks as a wide one.
    """
    if hasattr(fitted, "coef_"):
        return [np.atleast_2d(fitted.coef_).T], [np.atleast_1d(fitted.intercept_)]
    networks = getattr(fitted, "networks_", [fitted])
    weights = [[network.coefs_[layer] for network in networks] for layer in range(len(networks[0].coefs_))]
    biases = [[network.intercepts_[layer] for network in networks] for layer in range(len(networks[0].coefs_))]
    if len(weights) == 1:
        return [np.mean(weights[0], axis=0)], [np.mean(biases[0], axis=0)]
    inner = [block_diag(*blocks) for blocks in weights[1:-1]]
    wide = [np.concatenate(weights[0], axis=1), *inner, np.concatenate(weights[-1], axis=0) / len(networks)]
    return wide, [*(np.concatenate(layer) for layer in biases[:-1]), np.mean(biases[-1], axis=0)]


def _kernel(machines: Sequence[Any]) -> dict[str, np.ndarray]:
    """Centres [S, Z] that any of the support vector machines uses, their weights [S, K], offsets [K] and the kernel's
    gamma.
    """
    if not machines:
        return {}
    centres, place = np.unique(
        np.concatenate([machine.support_vectors_ for machine in machines]), axis=0, return_inverse=True
    )
    weights, start = np.zeros((len(centres), len(machines))), 0
    for column, machine in enumerate(machines):
        rows = place.ravel()[start : start + len(machine.support_vectors_)]
        np.add.at(weights[:, column], rows, machine.dual_coef_[0])
        start += len(rows)
    offset = np.concatenate([machine.intercept_ for machine in machines])
    return {"centres": centres, "weights": weights, "offset": offset, "gamma": np.asarray(machines[0].gamma)}
