r"""A probe made of several wide networks, averaged: the strongest reader of a latent that is quick to fit.

Shapes: N stars, F features, K labels, M networks.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin, clone
from torch import Tensor

from spectangle.model.networks import DiscriminatorBank

__all__ = ["AveragedMLPRegressor"]


class AveragedMLPRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Average M fully connected networks with ReLU, fitted side by side as one bank on every star, each for all labels
    at once.

    AdamW on the squared error, a rate that falls to zero along a cosine, a fixed number of epochs: no stars are held
    out, which matters where there are few. On a GPU if there is one.

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

    def fit(self, X: np.ndarray, y: np.ndarray) -> "AveragedMLPRegressor":
        """Fit to X [N, F] and y [N, K]."""
        self.bank_ = self.fit_each([X], [y])[0].bank_
        return self

    @torch.inference_mode(False)  # it may be called while Lightning validates
    @torch.enable_grad()
    def fit_each(self, X: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> list["AveragedMLPRegressor"]:
        """Fit one regressor to each of several sets of stars, the folds of a cross-validation, all in one bank: wide
        batched products cost less than many small ones. Of larger sets, as many stars as the smallest has count.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        n = min(len(part) for part in X)
        inputs, labels = (
            torch.stack([torch.as_tensor(np.asarray(part, np.float32).reshape(len(part), -1)[:n]) for part in parts])
            for parts in (X, y)
        )
        outputs = [labels.shape[-1]] * self.members
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            bank = DiscriminatorBank(inputs.shape[-1], outputs * len(X), list(self.hidden)).to(device)
            self._train(bank, inputs.to(device), labels.to(device))
            banks = [DiscriminatorBank(inputs.shape[-1], outputs, list(self.hidden)).to(device) for _ in X]
        fitted: list[Any] = [clone(self) for _ in X]
        for place, (regressor, own_bank) in enumerate(zip(fitted, banks, strict=True)):
            regressor.bank_ = own_bank
            own = slice(place * self.members, (place + 1) * self.members)
            own_bank.load_state_dict({name: value[own] for name, value in bank.state_dict().items()})
        return fitted

    @torch.no_grad()
    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict labels [N, K] of X [N, F]."""
        parts = torch.as_tensor(np.asarray(X, np.float32), device=next(self.bank_.parameters()).device).split(4096)
        return torch.cat([self.bank_(part).mean(0) for part in parts]).cpu().numpy()

    def _train(self, bank: DiscriminatorBank, inputs: Tensor, labels: Tensor) -> None:
        """Train members for each of S sets of stars, inputs [S, N, F] and labels [S, N, K]."""
        optimizer = torch.optim.AdamW(bank.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True)
        n_sets, n = inputs.shape[:2]
        batches = max(1, round(n / self.batch_size))
        sets = torch.arange(n_sets, device=inputs.device)[:, None]
        for step in range(self.epochs * batches):
            if step % batches == 0:
                order = torch.stack([torch.randperm(n) for _ in range(n_sets)]).to(inputs.device)
                order = order.tensor_split(batches, dim=1)
            rows = order[step % batches]
            x, y = inputs[sets, rows], labels[sets, rows]
            each = x[:, None].expand(-1, self.members, -1, -1).flatten(0, 1)  # the members of a set see the same stars
            optimizer.param_groups[0]["lr"] = self.lr * 0.5 * (1 + math.cos(math.pi * step / (self.epochs * batches)))
            error = bank(each).unflatten(0, (n_sets, self.members)) - y[:, None]
            loss = error.square().sum(-1).mean(-1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
