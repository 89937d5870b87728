"""Networks that read labels, fitted as one bank: those of several sets of stars, and of all runs of a pack that ask for
some at the same time.

Shapes: S sets of stars, N stars, F features, K labels, M networks for each set.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spectangle.model.networks import DiscriminatorBank
from spectangle.packs.captured import Replay
from spectangle.packs.stacked_adamw import adamw_step

__all__ = ["Fitted", "NetworkFit"]

Fitted = list[tuple[np.ndarray, np.ndarray]]  # of each layer, weights [S M, n_in, n_out] and biases [S M, n_out]


@dataclass(frozen=True)
class NetworkFit:
    """M fully connected networks with ReLU for each of S sets of stars, and how they are to be fitted.

    AdamW, a rate that falls to zero along a cosine, a fixed number of epochs.

    Arguments:
        inputs: [S, N, F].
        labels: [S, N, K].
        shares: Weights of the stars [S, N], 1 on average; None: all the same.
        hidden: Widths of the hidden layers.
        members: M.
        epochs: Passes over the stars.
        batch_size: Stars per batch.
        lr, weight_decay: Of AdamW.
        loss: ``squared_error`` or ``absolute_error``.
        seed: Of weights and order.
    """

    inputs: np.ndarray
    labels: np.ndarray
    shares: np.ndarray | None
    hidden: tuple[int, ...]
    members: int
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    loss: str
    seed: int

    @property
    def kind(self) -> tuple:
        """What the fits of one bank have in common: all sizes and settings but the seed."""
        sizes = self.inputs.shape, self.labels.shape, self.shares is None
        settings = self.hidden, self.members, self.epochs, self.batch_size, self.lr, self.weight_decay, self.loss
        return (*sizes, *settings)

    @staticmethod
    @torch.inference_mode(False)  # it may be called while Lightning validates
    @torch.enable_grad()
    def together(fits: Sequence["NetworkFit"], device: torch.device) -> list[Fitted]:
        """Fit networks of one kind side by side: wide batched products cost less than many small ones.

        Each fit has random numbers of its own, and comes out as it would alone, but for the order of sums in
        floating-point numbers.
        """
        one, n_sets = fits[0], len(fits[0].inputs)
        each = n_sets * one.members
        with torch.random.fork_rng(devices=[]):
            banks, generators = zip(*(_begin(fit) for fit in fits), strict=True)
            bank = DiscriminatorBank(one.inputs.shape[-1], [one.labels.shape[-1]] * each * len(fits), one.hidden)
        with torch.no_grad():
            for whole, *parts in zip(bank.parameters(), *(own.parameters() for own in banks), strict=True):
                whole.copy_(torch.cat(parts))
        bank.to(device)
        _train(bank, fits, generators, device)
        layers = [
            (weight.detach().cpu().numpy(), bias.detach().cpu().numpy()[:, 0])
            for weight, bias in zip(bank.weights, bank.biases, strict=True)
        ]
        places = [slice(i * each, (i + 1) * each) for i in range(len(fits))]
        return [[(weight[own], bias[own]) for weight, bias in layers] for own in places]


def _begin(fit: NetworkFit) -> tuple[DiscriminatorBank, torch.Generator]:
    """The networks of a fit before it, and its stream of random numbers after that."""
    torch.manual_seed(fit.seed)
    bank = DiscriminatorBank(fit.inputs.shape[-1], [fit.labels.shape[-1]] * fit.members * len(fit.inputs), fit.hidden)
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    return bank, generator


def _train(
    bank: DiscriminatorBank, fits: Sequence[NetworkFit], generators: Sequence[torch.Generator], device: torch.device
) -> None:
    one = fits[0]
    inputs, labels = (
        torch.from_numpy(np.concatenate(parts)).to(device)
        for parts in ([fit.inputs for fit in fits], [fit.labels for fit in fits])
    )
    shares = [fit.shares for fit in fits if fit.shares is not None]
    weights = torch.from_numpy(np.concatenate(shares)).to(device) if shares else None
    (n_sets, n), own = inputs.shape[:2], len(one.inputs)
    batches = max(1, round(n / one.batch_size))
    sets = torch.arange(n_sets, device=device)[:, None]
    parameters = list(bank.parameters())
    means, squares = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    taken = [torch.zeros((), device=device) for _ in parameters]

    def take(rows: torch.Tensor, rate: Any) -> dict[str, torch.Tensor]:
        x, y = inputs[sets, rows], labels[sets, rows]
        each = x[:, None].expand(-1, one.members, -1, -1).flatten(0, 1)  # the members of a set see the same stars
        error = bank(each).unflatten(0, (n_sets, one.members)) - y[:, None]
        each_star = (error.square() if one.loss == "squared_error" else error.abs()).sum(-1)
        if weights is not None:
            each_star = each_star * weights[sets, rows][:, None]
        gradients = torch.autograd.grad(each_star.mean(-1).sum(), parameters)
        with torch.no_grad():
            adamw_step(parameters, gradients, means, squares, taken, rate, one.weight_decay)
        return {}

    steps = range(one.epochs * batches)
    rates: Any = [one.lr * 0.5 * (1 + math.cos(math.pi * step / len(steps))) for step in steps]
    replay = Replay(device)
    rates = torch.tensor(rates, device=device) if replay.on_gpu else rates
    for step in steps:
        if step % batches == 0:
            drawn = [torch.randperm(n, generator=generator) for generator in generators for _ in range(own)]
            order = torch.stack(drawn).to(device).tensor_split(batches, dim=1)
        replay(take, order[step % batches], rates[step])
