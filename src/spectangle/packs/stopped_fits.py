"""The paper's network, which stops when held-out stars say so: those of all runs of a pack that ask for one at the same
time.

Shapes: R runs, N stars, F features, K labels, B batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spectangle.model.networks import DiscriminatorBank
from spectangle.packs.captured import Replay
from spectangle.packs.stacked_adamw import adamw_step

__all__ = ["Stopped", "StoppedFit"]

RATE = 1e-3  # scikit-learn's
TOLERANCE = 1e-4  # of R2: less is no gain
Layers = list[tuple[np.ndarray, np.ndarray]]  # weights [n_in, n_out] and biases [n_out]


@dataclass(frozen=True)
class Stopped:
    """A network at its best epoch: its layers, R2 of the held-out stars (not finite: it diverged), epochs taken."""

    layers: Layers
    score: float
    epochs: int


@dataclass(frozen=True)
class StoppedFit:
    r"""A fully connected network with ReLU, and how it is to be fitted: as by scikit-learn's
    ``MLPRegressor(early_stopping=True)``.

    Adam (rate 1e-3), half the squared error plus :math:`\alpha \lVert w \rVert^2 / 2` over the batch, Glorot-uniform
    weights, stop when :math:`R^2` on a held-out tenth has not improved by 1e-4 for ``patience`` epochs, keep the best
    weights.

    Arguments:
        inputs: [N, F].
        labels: [N, K].
        shares: Weights of the stars [N], 1 on average.
        hidden: Widths of the hidden layers.
        alpha: Weight of the L2 penalty.
        max_iter: Epochs at most.
        patience: Epochs without improvement before it stops.
        batch_size: Stars per batch.
        seed: Of weights, held-out stars and order.
    """

    inputs: np.ndarray
    labels: np.ndarray
    shares: np.ndarray
    hidden: tuple[int, ...]
    alpha: float
    max_iter: int
    patience: int
    batch_size: int
    seed: int

    @property
    def kind(self) -> tuple:
        """What fits that are done together have in common: all sizes and settings but the seed."""
        settings = self.hidden, self.alpha, self.max_iter, self.patience, self.batch_size
        return (self.inputs.shape, self.labels.shape, *settings)

    @staticmethod
    @torch.inference_mode(False)  # it may be called while Lightning validates
    @torch.enable_grad()
    def together(fits: Sequence["StoppedFit"], device: torch.device) -> list[Stopped]:
        """Fit networks of one kind side by side, each with random numbers of its own, until the last has stopped."""
        return _Networks(fits, device).fit()


class _Networks:
    """Those of R runs side by side."""

    def __init__(self, fits: Sequence[StoppedFit], device: torch.device):
        self.one, self.device = fits[0], device
        self.generators = [torch.Generator().manual_seed(fit.seed) for fit in fits]
        n = len(self.one.inputs)
        orders = torch.stack([torch.randperm(n, generator=generator) for generator in self.generators])
        held, self.fitted = orders.tensor_split([max(2, n // 10)], dim=1)  # of one star there is no R2
        self.runs = torch.arange(len(fits), device=device)[:, None]
        self.inputs, self.labels, self.shares = (
            torch.from_numpy(np.stack(parts).astype(np.float32)).to(device)
            for parts in zip(*((fit.inputs, fit.labels, fit.shares) for fit in fits), strict=True)
        )
        self.held = held.to(device)
        n_in, n_out = self.inputs.shape[-1], self.labels.shape[-1]
        with torch.random.fork_rng(devices=[]):  # its own weights are not wanted
            self.bank = DiscriminatorBank(n_in, [n_out] * len(fits), self.one.hidden)
        for r, generator in enumerate(self.generators):
            _glorot(self.bank, r, generator)
        self.parameters = list(self.bank.to(device).parameters())
        self.means, self.squares = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        self.taken = [torch.zeros((), device=device) for _ in self.parameters]

    def fit(self) -> list[Stopped]:
        """Take epochs until every network has stopped; each is given back as it was at its best."""
        replay, count = Replay(self.device), len(self.generators)
        best, score, waited = [p.detach().clone() for p in self.parameters], np.full(count, -np.inf), np.zeros(count)
        epochs, alive = np.zeros(count, dtype=int), np.full(count, True)
        for _ in range(self.one.max_iter):
            for rows in self._epoch().split(self.one.batch_size, dim=1):
                replay(self._take, rows)
            now = self._scores()
            epochs += alive
            diverged = alive & ~np.isfinite(now)
            waited = np.where(now > score + TOLERANCE, 0, waited + 1)
            better = alive & (now > score)
            score = np.where(better | diverged, now, score)
            rows = torch.from_numpy(np.flatnonzero(better)).to(self.device)
            for kept, parameter in zip(best, self.parameters, strict=True):
                kept[rows] = parameter.detach()[rows]
            alive &= (waited <= self.one.patience) & ~diverged
            if not alive.any():
                break
        numbers = [tensor.cpu().numpy() for tensor in best]
        layers = list(zip(numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :], strict=True))
        return [
            Stopped([(weight[r], bias[r, 0]) for weight, bias in layers], float(score[r]), int(epochs[r]))
            for r in range(count)
        ]

    def _epoch(self) -> Tensor:
        """Rows of the fitted stars [R, n], in a new order of each run's own."""
        orders = [
            own[torch.randperm(len(own), generator=generator)]
            for own, generator in zip(self.fitted, self.generators, strict=True)
        ]
        return torch.stack(orders).to(self.device)

    def _take(self, rows: Tensor) -> dict[str, Tensor]:
        """One step of each network on stars of its own [R, B]."""
        # summed over labels, as scikit-learn does
        error = (self.bank(self.inputs[self.runs, rows]) - self.labels[self.runs, rows]).square().sum(-1)
        loss = 0.5 * (self.shares[self.runs, rows] * error).mean(-1).sum()
        penalty = torch.stack([weight.square().sum() for weight in self.bank.weights]).sum()
        loss = loss + 0.5 * self.one.alpha * penalty / rows.shape[1]
        gradients = torch.autograd.grad(loss, self.parameters)  # the runs share no parameter
        with torch.no_grad():
            adamw_step(self.parameters, gradients, self.means, self.squares, self.taken, RATE, weight_decay=0.0)
        return {}

    @torch.no_grad()
    def _scores(self) -> np.ndarray:
        """R2 of the held-out stars [R], mean over labels."""
        labels, shares = self.labels[self.runs, self.held], self.shares[self.runs, self.held][..., None]
        mean = (shares * labels).sum(1, keepdim=True) / shares.sum(1, keepdim=True)
        error = (shares * (self.bank(self.inputs[self.runs, self.held]) - labels).square()).sum(1)
        variance = (shares * (labels - mean).square()).sum(1)
        return (1 - error / variance).mean(1).cpu().numpy().astype(np.float64)


@torch.no_grad()
def _glorot(bank: DiscriminatorBank, r: int, generator: torch.Generator) -> None:
    """Initialise weights and biases of one network as scikit-learn does, layer by layer."""
    for weight, bias in zip(bank.weights, bank.biases, strict=True):
        bound = np.sqrt(6 / sum(weight.shape[1:]))
        for values in (weight[r], bias[r]):
            values.copy_((2 * torch.rand(values.shape, generator=generator) - 1) * bound)
