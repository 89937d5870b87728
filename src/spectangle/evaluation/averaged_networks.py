r"""Several wide networks, averaged: the strongest reader of a latent that is quick to fit.

Shapes: N stars, F features, K labels, M networks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, clone
from torch import Tensor

from spectangle.devices import chosen_device
from spectangle.errors import SpectangleError
from spectangle.packs.line import begin_fit
from spectangle.packs.network_fits import Fitted, NetworkFit

__all__ = ["AveragedMLPRegressor"]

LOSSES = ("squared_error", "absolute_error")  # scikit-learn's words


class AveragedMLPRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Average M fully connected networks with ReLU, fitted side by side as one bank on every star, each for all labels
    at once.

    AdamW, a rate that falls to zero along a cosine, a fixed number of epochs: no stars are held out, which matters
    where there are few. On the device of the training.

    Arguments:
        hidden: Widths of the hidden layers.
        members: M.
        epochs: Passes over the stars.
        batch_size: Stars per batch.
        lr, weight_decay: Of AdamW.
        loss: ``squared_error`` reads the mean of what a label may be, ``absolute_error`` the median, which no other
            number beats in mean absolute error.
        seed: Seed of weights and order.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (128, 64, 64),
        members: int = 2,
        epochs: int = 40,
        batch_size: int = 256,
        lr: float = 8e-3,
        weight_decay: float = 1e-2,
        loss: str = "squared_error",
        seed: int = 0,
    ):
        self.hidden, self.members, self.epochs, self.batch_size = hidden, members, epochs, batch_size
        self.lr, self.weight_decay, self.loss, self.seed = lr, weight_decay, loss, seed

    def fit(self, X: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> "AveragedMLPRegressor":
        """Fit to X [N, F] and y [N, K], with weights of the stars [N] (None: all the same)."""
        fitted = self.begin_each([X], [y], None if sample_weight is None else [sample_weight])()[0]
        self.coefs_, self.intercepts_ = fitted.coefs_, fitted.intercepts_
        return self

    def begin_each(
        self, X: Sequence[np.ndarray], y: Sequence[np.ndarray], weights: Sequence[np.ndarray] | None = None
    ) -> Callable[[], list["AveragedMLPRegressor"]]:
        """Begin to fit one regressor to each of several sets of stars, the folds of a cross-validation, all in one
        bank. Of larger sets, as many stars as the smallest has count.

        What is returned gives the fitted ones; a pack with a GPU fits them until then, otherwise they are fitted then.

        Raises:
            SpectangleError: The loss is unknown.
        """
        if self.loss not in LOSSES:
            raise SpectangleError(f"The regressor's loss is '{self.loss}'; it must be {' or '.join(LOSSES)}.")
        n = min(len(part) for part in X)
        inputs, labels = (
            np.stack([np.asarray(part, np.float32).reshape(len(part), -1)[:n] for part in parts]) for parts in (X, y)
        )
        shares = None if weights is None else np.stack([_shares(part[:n]) for part in weights])
        settings = self.epochs, self.batch_size, self.lr, self.weight_decay, self.loss, self.seed
        fit = begin_fit(NetworkFit(inputs, labels, shares, tuple(self.hidden), self.members, *settings))
        return lambda: self._of_each(fit(), len(X))

    def _of_each(self, layers: Fitted, count: int) -> list["AveragedMLPRegressor"]:
        """As many regressors, each with its own M of the fitted networks."""
        fitted: list[Any] = [clone(self) for _ in range(count)]
        for place, regressor in enumerate(fitted):
            own = slice(place * self.members, (place + 1) * self.members)
            regressor.coefs_ = [weight[own].copy() for weight, _ in layers]
            regressor.intercepts_ = [bias[own].copy() for _, bias in layers]
        return fitted

    @property
    def networks_(self) -> list["FittedMLP"]:
        """The fitted networks one by one, with weights and biases as scikit-learn's have them."""
        return [
            FittedMLP([w[m] for w in self.coefs_], [b[m] for b in self.intercepts_]) for m in range(len(self.coefs_[0]))
        ]

    @torch.no_grad()
    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict labels [N, K] of X [N, F]."""
        device = chosen_device()
        layers = [
            (torch.from_numpy(w).to(device), torch.from_numpy(b[:, None]).to(device))
            for w, b in zip(self.coefs_, self.intercepts_, strict=True)
        ]
        parts = torch.as_tensor(np.asarray(X, np.float32), device=device).split(4096)
        return torch.cat([_forward(part, layers).mean(0) for part in parts]).cpu().numpy()


class FittedMLP:
    """One fitted network: weights [n_in, n_out] and biases [n_out] of each layer."""

    def __init__(self, coefs: list[np.ndarray], intercepts: list[np.ndarray]):
        self.coefs_, self.intercepts_ = coefs, intercepts


def _shares(weights: np.ndarray) -> np.ndarray:
    """Weights [N] whose mean is 1."""
    return np.asarray(weights / np.mean(weights), np.float32)


def _forward(x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Outputs of each network [M, B, K]."""
    h = x.expand(len(layers[0][0]), *x.shape)
    for i, (weight, bias) in enumerate(layers):
        h = torch.baddbmm(bias, h, weight)
        h = h.relu_() if i < len(layers) - 1 else h
    return h
