"""Several models of one shape as one: their parameters stacked, each step of training taken by all at once.

Shapes: M models, N stars, B batch, D discriminators, K labels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from spectangle.data.stars import epoch_seed, star_order
from spectangle.errors import SpectangleError
from spectangle.model.adversary import Questions
from spectangle.model.epoch_means import star_counts
from spectangle.model.losses import training_progress
from spectangle.packs.captured import Replay
from spectangle.packs.member import STRENGTHS, Member, running_statistics
from spectangle.packs.stacked_adamw import StackedGroup, copy_each

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
        on_gpu = self.device.type == "cuda"
        self.groups = [StackedGroup(list(own), on_gpu) for own in zip(*(m.groups for m in members), strict=True)]
        self.autoencoder = self.groups[: len(members[0].autoencoder)]
        self.discriminators = self.groups[len(members[0].autoencoder) :]
        self.buffers, self.methods = self._own_buffers(), _Methods(self.model)
        self.strengths = {
            name: torch.tensor([getattr(m.model, name) for m in members], dtype=self.dtype, device=self.device)
            for name in STRENGTHS
        }
        self.units = torch.stack([torch.as_tensor(member.model.unit, device=self.device) for member in members])
        self.replay = Replay(self.device)  # it holds no stack: one that is dropped frees its memory at once
        self.drawn = list(members[0].model.draw(1, torch.Generator(self.device)))
        self.factors = self._factors()

    def train_epoch(self, stars: Sequence[Tensor], epochs: Sequence[int], n_batches: int) -> list[dict[str, Any]]:
        """Train each member for one epoch; return its new state, the sums of its metrics and their numbers of stars.

        Arguments:
            stars: What a batch is drawn from: flux [N, P], noise [N], labels, classes and weights [N, K].
            epochs: The epoch that each member is in, from 0.
            n_batches: Batches of an epoch.
        """
        members, self.factors = list(zip(self.members, epochs, strict=True)), self._factors()
        orders = torch.stack([star_order(len(stars[0]), member.seed, epoch) for member, epoch in members])
        generators = [torch.Generator(self.device).manual_seed(epoch_seed(m.seed, epoch)) for m, epoch in members]
        sums: dict[str, Any] = {}
        counts: dict[str, Any] = {}
        with default_dtype(self.dtype):
            for i, rows in enumerate(orders.to(self.device).tensor_split(n_batches, dim=1)):
                batch = tuple(t[rows].to(self.dtype) if t.is_floating_point() else t[rows] for t in stars)
                progress = [training_progress(epoch, i, n_batches, member.epochs) for member, epoch in members]
                stars_of = star_counts(batch)
                for name, value in self.step(batch, generators, progress).items():
                    sums[name] = sums.get(name, 0.0) + value.detach() * stars_of[name]
                    counts[name] = counts.get(name, 0) + stars_of[name]
        return [
            {
                "state": state,
                "sums": {name: total[m].cpu().numpy() for name, total in sums.items()},
                "counts": {
                    name: count[m].cpu().numpy() if isinstance(count, Tensor) else count
                    for name, count in counts.items()
                },
            }
            for m, state in enumerate(self.states())
        ]

    def step(
        self, batch: tuple[Tensor, ...], generators: Sequence[torch.Generator], progress: Sequence[float]
    ) -> dict[str, Tensor]:
        """One training step of every member (paper, eq. 4) on batches [M, B, ...] of their own; return reconstruction
        and loss [M] in flux units and the discriminators' cross-entropies [M, names].
        """
        drawn = [member.model.draw(batch[0].shape[1], g) for member, g in zip(self.members, generators, strict=True)]
        draws = [torch.stack([one[name] for one in drawn]) for name in self.drawn]
        factors = self._numbers([factor(p) for factor, p in zip(self.factors, progress, strict=True)])
        rates = self._rates(progress)
        inputs = factors, rates, *batch, *draws
        return self.replay(self._arithmetic, *inputs)

    def _arithmetic(self, factors: Tensor, rates: Tensor, *tensors: Tensor) -> dict[str, Tensor]:
        """A step of lambda's factors [M] and the rates of the groups [groups, M or 1], the five tensors of a batch and
        what was drawn: nothing in it waits for a GPU.
        """
        batch = tensors[: len(tensors) - len(self.drawn)]
        draws = dict(zip(self.drawn, tensors[len(batch) :], strict=True))
        autoencoder = _parameters(self.autoencoder)
        step = self._call("look", autoencoder, batch, draws)
        here = len(self.autoencoder)
        cross_entropy = self._discriminator_steps(step["seen"].detach(), step["questions"], rates[here:])
        frozen = {name: value.detach() for name, value in _parameters(self.discriminators).items()}
        loss, reconstruction = self._call("autoencoder_loss", autoencoder | frozen, step, factors.to(self.dtype))
        _update(self.autoencoder, loss, rates[:here])
        return {"reconstruction": reconstruction, "loss": loss.detach() * self.units, "discriminator": cross_entropy}

    def _rates(self, progress: Sequence[float]) -> Tensor:
        """Rates of the groups [groups, M]; taken together [groups, 1], if all members have the same."""
        rates = [group.rates(progress) for group in self.groups]
        if self.groups[0].together and all(len(set(own)) == 1 for own in rates):
            rates = [own[:1] for own in rates]
        return self._numbers(rates)

    def _factors(self) -> list[Callable[[float], float]]:
        """Of each member, lambda's factor by the progress. What a plateau has made of it holds for an epoch, and is
        read from the device once.
        """
        adversaries: list[Any] = [member.model.adversary for member in self.members]
        return [
            partial(_held, float(adversary.plateau[0])) if adversary.schedule == "plateau" else adversary.factor
            for adversary in adversaries
        ]

    def _numbers(self, values: list) -> Tensor:
        """Numbers in double precision on the device; on their way to a GPU nobody waits for them."""
        tensor = torch.tensor(values, dtype=torch.float64)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

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

    def reread(self) -> None:
        """Take over what the members' models have become elsewhere: parameters, running statistics and strengths."""
        for m, member in enumerate(self.members):
            for stacked, group in zip(self.groups, member.groups, strict=True):
                copy_each(stacked.rows[m][0], list(group.values.values()))
            buffers = dict(member.model.named_buffers())
            for name, kept in self.buffers.items():
                kept[m].copy_(buffers[name])
            for name, strengths in self.strengths.items():
                strengths[m] = getattr(member.model, name)

    def _discriminator_steps(self, seen: Tensor, questions: Questions, rates: Tensor) -> Tensor:
        adversary = self.model.adversary
        cross_entropy = torch.zeros(len(self.members), len(adversary.weights), device=self.device)
        for _ in range(adversary.steps):
            parameters = _parameters(self.discriminators)
            cross_entropy = self._call("adversary.cross_entropy", parameters, seen, questions)
            _update(self.discriminators, cross_entropy, rates)
        return torch.vmap(adversary.by_name)(cross_entropy.detach())

    def _call(self, method: str, parameters: Mapping[str, Tensor], *arguments: Any) -> Any:
        """Call a method of the model for each member with parameters, buffers and strengths of its own."""

        def one(tensors: Mapping[str, Tensor], strengths: Mapping[str, Tensor], *arguments: Any) -> Any:
            own = {f"model.{name}": value for name, value in tensors.items()}
            return functional_call(self.methods, own, (method, strengths, *arguments))

        with self.autocast:
            return torch.vmap(one)({**parameters, **self.buffers}, self.strengths, *arguments)

    def _own_buffers(self) -> dict[str, Tensor]:
        """Buffers in which members differ, or which training changes, [M, ...]; the others are the model's."""
        changed = {name for name, _ in running_statistics(self.model)}
        every = [dict(member.model.named_buffers()) for member in self.members]
        return {
            name: torch.stack([buffers[name] for buffers in every])
            for name, first in every[0].items()
            if name in changed or not all(torch.equal(first, buffers[name]) for buffers in every)
        }


def _held(value: float, _: float) -> float:
    return value


def _parameters(groups: Iterable[StackedGroup]) -> dict[str, Tensor]:
    """By name, [M, ...]."""
    return {name: value for group in groups for name, value in group.parameters.items()}


def _update(groups: Sequence[StackedGroup], losses: Tensor, rates: Tensor) -> None:
    """One step of some groups at rates [groups, M or 1] on the losses [M, ...] of all members, which share no
    parameter.
    """
    parameters = _parameters(groups)
    gradients = dict(zip(parameters, torch.autograd.grad(losses.sum(), list(parameters.values())), strict=True))
    for group, own in zip(groups, rates, strict=True):
        group.step([gradients[name] for name in group.parameters], own)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors of a type, as Lightning does for a step in double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Methods(nn.Module):
    """Call methods of a model where torch wants a module."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, method: str, strengths: Mapping[str, Tensor], *arguments: Any) -> Any:
        before = {name: getattr(self.model, name) for name in strengths}
        try:
            for name, value in strengths.items():
                setattr(self.model, name, value)
            return attrgetter(method)(self.model)(*arguments)
        finally:
            for name, value in before.items():
                setattr(self.model, name, value)
