r"""A probe made of several wide networks, averaged: the strongest reader of a latent that is quick to fit.

Shapes: N stars, F features, K labels, M networks.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from torch import Tensor

from spectangle.model.networks import DiscriminatorBank

__all__ = ["AveragedMLPRegressor"]


class AveragedMLPRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Average M fully connected networks with ReLU, fitted side by side as one bank on every star, each for all labels at once.

    AdamW on the squared error, a rate that falls to zero along a cosine, a fixed number of epochs: no stars are held out, which
    matters where there are few. On a GPU if there is one.

    Arguments:
        hidden: Widths of the hidden layers.
        members: M.
        epochs: Passes over the stars.
        batch_size: Stars per batch.
        lr, weight_decay: Of AdamW.
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
        seed: int = 0,
    ):
        self.hidden, self.members, self.epochs, self.batch_size = hidden, members, epochs, batch_size
        self.lr, self.weight_decay, self.seed = lr, weight_decay, seed

    @torch.inference_mode(False)  # it may be called while Lightning validates
    @torch.enable_grad()
    def fit(self, X: np.ndarray, y: np.ndarray) -> "AveragedMLPRegressor":
        """Fit to X [N, F] and y [N, K]."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        inputs, labels = (torch.as_tensor(np.asarray(values, np.float32), device=device) for values in (X, y.reshape(len(y), -1)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.bank_ = DiscriminatorBank(inputs.shape[1], [labels.shape[1]] * self.members, list(self.hidden)).to(device)
            self._train(inputs, labels)
        return self

    @torch.no_grad()
    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict labels [N, K] of X [N, F]."""
        parts = torch.as_tensor(np.asarray(X, np.float32), device=next(self.bank_.parameters()).device).split(4096)
        return torch.cat([self.bank_(part).mean(0) for part in parts]).cpu().numpy()

    def _train(self, inputs: Tensor, labels: Tensor) -> None:
        optimizer = torch.optim.AdamW(self.bank_.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True)
        batches = max(1, round(len(inputs) / self.batch_size))
        for step in range(self.epochs * batches):
            if step % batches == 0:
                order = torch.randperm(len(inputs)).to(inputs.device).tensor_split(batches)
            rows = order[step % batches]
            optimizer.param_groups[0]["lr"] = self.lr * 0.5 * (1 + math.cos(math.pi * step / (self.epochs * batches)))
            loss = (self.bank_(inputs[rows]) - labels[rows]).square().sum(-1).mean(-1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
