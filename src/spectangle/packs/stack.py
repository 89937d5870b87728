"""Several models of one shape as one: their parameters stacked, each step of training taken by all at once.

Shapes: M models, N stars, B batch, D discriminators, K labels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from spectangle.data.stars import epoch_seed
from spectangle.errors import SpectangleError
from spectangle.packs.member import STRENGTHS, Member, running_statistics
from spectangle.packs.stacked_adamw import StackedGroup

__all__ = ["Stack"]


class Stack:
    """Members that take each step together.

    Linear layers become batched matrix products; each member has its own learning rates, lambdas, noise, order of stars
    and random numbers, and computes what it would compute alone, but for the order of sums in floating-point numbers.

    Arguments:
        members: Of one :attr:`Member.shape`, on one device.
        precision: Lightning's, one of :attr:`PRECISIONS`.

    Raises:
        SpectangleError: A member's shape differs from the first one's.
    """

    PRECISIONS = ("32-true", "bf16-mixed", "64-true")

    def __init__(self, members: Sequence[Member], precision: str = "32-true"):
        if any(member.shape != members[0].shape for member in members):
            raise SpectangleError("These models have different shapes; only models of one shape train together.")
        self.members, self.model = list(members), members[0].model
        self.device = members[0].device
        self.dtype = torch.float64 if precision == "64-true" else torch.float32
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
        self.groups = [StackedGroup([member.groups[i] for member in members]) for i in range(len(members[0].groups))]
        self.autoencoder = self.groups[: len(members[0].autoencoder)]
        self.discriminators = self.groups[len(members[0].autoencoder) :]
        self.buffers, self.common = self._stack_buffers()
        self.strengths = {
            name: torch.tensor([getattr(m.model, name) for m in members], dtype=self.dtype, device=self.device)
            for name in STRENGTHS
        }

    def train_epoch(
        self, stars: Sequence[Tensor], epochs: Sequence[int], plateaus: Tensor, n_batches: int, order: Callable
    ) -> list[dict[str, Any]]:
        """Train each member for one epoch; return its new state, the sums of its metrics and their number of stars.

        Arguments:
            stars: What a batch is drawn from: flux [N, P], noise [N], labels, classes and weights [N, K].
            epochs: The epoch that each member is in, from 0.
            plateaus: State of each member's ``plateau`` schedule [M, 3].
            n_batches: Batches of an epoch.
            order: Of the stars [N] by seed and epoch.
        """
        with default_dtype(self.dtype):
            return self._train_epoch(stars, epochs, plateaus, n_batches, order)

    def _train_epoch(
        self, stars: Sequence[Tensor], epochs: Sequence[int], plateaus: Tensor, n_batches: int, order: Callable
    ) -> list[dict[str, Any]]:
        generators = [
            torch.Generator(self.device).manual_seed(epoch_seed(member.seed, epoch))
            for member, epoch in zip(self.members, epochs, strict=True)
        ]
        orders = torch.stack([order(m.seed, epoch) for m, epoch in zip(self.members, epochs, strict=True)])
        sums: dict[str, Tensor] = {}
        for i, rows in enumerate(orders.to(self.device).tensor_split(n_batches, dim=1)):
            progress = [
                (epoch + i / n_batches) / max(1, member.epochs)
                for member, epoch in zip(self.members, epochs, strict=True)
            ]
            batch = tuple(t[rows].to(self.dtype) if t.is_floating_point() else t[rows] for t in stars)
            for name, value in self.step(batch, generators, progress, plateaus).items():
                sums[name] = sums.get(name, 0.0) + value.detach() * rows.shape[1]
        count = orders.shape[1]
        states = self.states()
        return [
            {"state": state, "sums": {name: total[m].cpu().numpy() for name, total in sums.items()}, "count": count}
            for m, state in enumerate(states)
        ]

    def step(
        self,
        batch: tuple[Tensor, ...],
        generators: Sequence[torch.Generator],
        progress: Sequence[float],
        plateaus: Tensor,
    ) -> dict[str, Tensor]:
        """One training step of every member (paper, eq. 4) on batches [M, B, ...] of their own; return reconstruction
        and loss [M] in flux units and the discriminators' cross-entropies [M, names].
        """
        *_, bins, weights = batch
        n = bins.shape[1]
        drawn = [member.model.draw(n, g) for member, g in zip(self.members, generators, strict=True)]
        draws = {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}
        with self.autocast:
            step = self._call(self.model, "look", self._parameters(), batch, draws)
        cross_entropy = self._discriminator_steps(step["seen"].detach(), step["targets"], bins, weights, progress)
        factors = torch.tensor(
            [float(_factor(m, p, plateau)) for m, p, plateau in zip(self.members, progress, plateaus, strict=True)],
            device=self.device,
        )
        frozen = {name: value.detach() for name, value in self._parameters(self.discriminators).items()}
        parameters = self._parameters(self.autoencoder) | frozen
        with self.autocast:
            loss, reconstruction = self._call(self.model, "autoencoder_loss", parameters, step, bins, weights, factors)
        self._update(self.autoencoder, loss, progress)
        unit = torch.stack([torch.as_tensor(member.model.unit, device=self.device) for member in self.members])
        return {"reconstruction": reconstruction, "loss": loss.detach() * unit, "discriminator": cross_entropy}

    def states(self) -> list[dict[str, Any]]:
        """What training has changed of each member, as numpy arrays: values, memories and steps of its groups, running
        statistics.
        """
        groups = [group.on_host() for group in self.groups]
        statistics = {name: self.buffers[name].cpu().numpy().copy() for name, _ in running_statistics(self.model)}
        return [
            {
                "groups": [[[tensor[m, ...] for tensor in kind] for kind in group] for group in groups],
                "statistics": {name: values[m, ...] for name, values in statistics.items()},
            }
            for m in range(len(self.members))
        ]

    def hand_back(self) -> None:
        """Give the members what training has changed of them, so that another stack can go on with some."""
        for m, member in enumerate(self.members):
            for stacked, group in zip(self.groups, member.groups, strict=True):
                values, group.means, group.squares, (group.step, *_) = stacked.rows[m]
                group.values = dict(zip(group.values, values, strict=True))
            for name, buffer in running_statistics(member.model):
                buffer.copy_(self.buffers[name][m])

    def _discriminator_steps(
        self, seen: Tensor, targets: Tensor, bins: Tensor, weights: Tensor, progress: Sequence[float]
    ) -> Tensor:
        adversary = self.model.adversary
        cross_entropy = torch.zeros(len(self.members), len(adversary.weights), device=self.device)
        for _ in range(adversary.steps):
            parameters = {
                name.removeprefix("adversary."): value for name, value in self._parameters(self.discriminators).items()
            }
            with self.autocast:
                cross_entropy = self._call(
                    adversary, "cross_entropy", parameters, seen, targets, bins, weights, prefix="adversary."
                )
            self._update(self.discriminators, cross_entropy, progress)
        return cross_entropy.detach().view(len(self.members), -1, len(adversary.names)).mean(1)

    def _call(
        self, module: nn.Module, method: str, parameters: Mapping[str, Tensor], *arguments: Any, prefix: str = ""
    ) -> Any:
        """Call a method of a module for each member with its parameters, buffers and strengths."""
        wrapped = _Method(module, method)

        def shortened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        own, common = shortened(self.buffers), shortened(self.common)

        def one(parameters: Any, buffers: Any, strengths: Any, *arguments: Any) -> Any:
            tensors = {f"module.{name}": value for name, value in (parameters | buffers | common).items()}
            return functional_call(wrapped, tensors, (strengths if module is self.model else {}, *arguments))

        return torch.vmap(one)(dict(parameters), own, self.strengths, *arguments)

    def _parameters(self, groups: Iterable["StackedGroup"] | None = None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for group in self.groups if groups is None else groups:
            found |= group.parameters
        return found

    def _update(self, groups: Sequence["StackedGroup"], losses: Tensor, progress: Sequence[float]) -> None:
        parameters = self._parameters(groups)
        gradients = dict(zip(parameters, torch.autograd.grad(losses.sum(), list(parameters.values())), strict=True))
        for group in groups:
            group.step([gradients[name] for name in group.parameters], progress)

    def _stack_buffers(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Buffers of each member, stacked, and those that all share and none changes."""
        statistics = {name for name, _ in running_statistics(self.model)}
        every = [dict(member.model.named_buffers()) for member in self.members]
        own, common = {}, {}
        for name, first in every[0].items():
            if name not in statistics and all(torch.equal(first, buffers[name]) for buffers in every):
                common[name] = first
            else:
                own[name] = torch.stack([buffers[name] for buffers in every])
        return own, common


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors of a type, as Lightning does for a step in double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Method(nn.Module):
    """Call a method where torch wants a module."""

    def __init__(self, module: nn.Module, method: str):
        super().__init__()
        self.module, self.method = module, method

    def forward(self, strengths: Mapping[str, Tensor], *arguments: Any) -> Any:
        before = {name: getattr(self.module, name) for name in strengths}
        try:
            for name, value in strengths.items():
                setattr(self.module, name, value)
            return getattr(self.module, self.method)(*arguments)
        finally:
            for name, value in before.items():
                setattr(self.module, name, value)


def _factor(member: Member, progress: float, plateau: Tensor) -> float | Tensor:
    adversary = member.model.adversary
    return plateau[0] if adversary.schedule == "plateau" else adversary.factor(progress)
