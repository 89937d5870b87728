"""Several models of one shape as one: their parameters stacked, each step of training taken by all at once.

Shapes: M models, B batch, P pixels, K labels, n parameters of a group.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.adamw import adamw

from spectangle.data.stars import epoch_seed
from spectangle.errors import SpectangleError
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.model.losses import decay_factor

__all__ = ["Member", "Stack"]

# attributes of a model that may differ inside a stack, beside its parameters and buffers
STRENGTHS = ("input_noise", "latent_noise", "latent_rate", "reconstruction_weight")


@dataclass
class Group:
    """Parameters of one model that share an optimizer's settings, by name, with Adam's running means of their gradients
    and of the squares of these.

    Number of steps so far; rate at the start, betas, eps and weight decay; fraction of the rate at the end.
    """

    values: dict[str, Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    step: Tensor
    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    lr_end: float


@dataclass
class Member:
    """A model in a stack, with its optimizers' state and its own random streams.

    The model; groups of its autoencoder and of its discriminators; seed of the order of stars and of the noise; epochs
    of the whole training.
    """

    model: DisentanglingAutoencoder
    autoencoder: list[Group]
    discriminators: list[Group]
    seed: int
    epochs: int

    @property
    def groups(self) -> list[Group]:
        return self.autoencoder + self.discriminators

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def shape(self) -> str:
        """What the members of a stack have in common: every size, and what is computed at all."""
        adversary = self.model.adversary
        tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
        parts = (
            [(name, tuple(value.shape), value.dtype) for name, value in tensors],
            [bool(getattr(self.model, name)) for name in STRENGTHS],
            (adversary.entangled, adversary.disentangled, adversary.regressed, adversary.steps),
            (adversary.objective, adversary.loss, adversary.condition_on, adversary.lambda_unit),
            [list(group.values) for group in self.groups],
        )
        return str(parts)

    def to(self, device: torch.device) -> "Member":
        """The member on a device."""
        self.model.to(device)
        for group in self.groups:
            group.values = {name: value.to(device) for name, value in group.values.items()}
            group.means, group.squares = ([t.to(device) for t in kept] for kept in (group.means, group.squares))
            group.step = group.step.to(device)
        return self

    @classmethod
    def of(
        cls, model: DisentanglingAutoencoder, optimizers: Sequence[torch.optim.Optimizer], seed: int, epochs: int
    ) -> "Member":
        """A model and its two optimizers, wherever their training is."""
        names = {parameter: name for name, parameter in model.named_parameters()}
        ends = model.lr_ends
        parts = [
            [_group(optimizer, group, names, end) for group in optimizer.param_groups]
            for optimizer, end in zip(optimizers, ends, strict=True)
        ]
        return cls(model, *parts, seed=seed, epochs=epochs)

    def load(self, state: Mapping[str, Any], optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Write a state of :meth:`Stack.states` into the model and into its optimizers."""
        parameters, buffers = dict(self.model.named_parameters()), dict(self.model.named_buffers())
        groups = [
            (optimizer, group)
            for optimizer, own in zip(optimizers, (self.autoencoder, self.discriminators), strict=True)
            for group in own
        ]
        with torch.no_grad():
            for (optimizer, group), (values, means, squares, (step,)) in zip(groups, state["groups"], strict=True):
                for name, value, mean, square in zip(group.values, values, means, squares, strict=True):
                    parameter = parameters[name]
                    parameter.copy_(torch.from_numpy(value))
                    memory = {"step": step.copy(), "exp_avg": mean, "exp_avg_sq": square}
                    optimizer.state[parameter] = {
                        key: torch.from_numpy(kept).to(parameter.device) for key, kept in memory.items()
                    }
            for name, value in state["statistics"].items():
                buffers[name].copy_(torch.from_numpy(value))


class Stack:
    """Members that take each step together.

    Linear layers become batched matrix products; each member has its own learning rates, lambdas, noise, order of stars
    and random numbers, and computes what it would compute alone, but for the order of sums in floating-point numbers.

    Arguments:
        members: Of one :attr:`Member.shape`, on one device.
        precision: Lightning's: ``32-true`` or ``bf16-mixed``.

    Raises:
        SpectangleError: A member's shape differs from the first one's.
    """

    PRECISIONS = ("32-true", "bf16-mixed", "64-true")

    def __init__(self, members: Sequence[Member], precision: str = "32-true"):
        if any(member.shape != members[0].shape for member in members):
            raise SpectangleError("These models have different shapes; only models of one shape train together.")
        self.members, self.model = list(members), members[0].model
        self.device = members[0].device
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
        self.groups = [_Stacked([member.groups[i] for member in members]) for i in range(len(members[0].groups))]
        self.autoencoder = self.groups[: len(members[0].autoencoder)]
        self.discriminators = self.groups[len(members[0].autoencoder) :]
        self.buffers, self.common = self._stack_buffers()
        self.strengths = {
            name: torch.tensor([float(getattr(member.model, name)) for member in members], device=self.device)
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
            batch = tuple(tensor[rows] for tensor in stars)
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
        statistics = {name: self.buffers[name].cpu().numpy().copy() for name, _ in _statistics(self.model)}
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
            for name, buffer in _statistics(member.model):
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

    def _parameters(self, groups: Iterable["_Stacked"] | None = None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for group in self.groups if groups is None else groups:
            found |= group.parameters
        return found

    def _update(self, groups: Sequence["_Stacked"], losses: Tensor, progress: Sequence[float]) -> None:
        parameters = self._parameters(groups)
        gradients = dict(zip(parameters, torch.autograd.grad(losses.sum(), list(parameters.values())), strict=True))
        for group in groups:
            group.step([gradients[name] for name in group.parameters], progress)

    def _stack_buffers(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Buffers of each member, stacked, and those that all share and none changes."""
        statistics = {name for name, _ in _statistics(self.model)}
        every = [dict(member.model.named_buffers()) for member in self.members]
        own, common = {}, {}
        for name, first in every[0].items():
            if name not in statistics and all(torch.equal(first, buffers[name]) for buffers in every):
                common[name] = first
            else:
                own[name] = torch.stack([buffers[name] for buffers in every])
        return own, common


class _Stacked:
    """A group of parameters of all members, by name [M, ...], which learn, and what Adam remembers of each member."""

    def __init__(self, groups: Sequence[Group]):
        self.groups = groups
        self.parameters = {
            name: torch.stack([group.values[name] for group in groups]).requires_grad_() for name in groups[0].values
        }
        self.stacked = (
            [value.detach() for value in self.parameters.values()],
            [torch.stack(means) for means in zip(*(group.means for group in groups), strict=True)],
            [torch.stack(squares) for squares in zip(*(group.squares for group in groups), strict=True)],
        )
        self.steps = torch.stack([group.step for group in groups])[:, None].repeat(1, len(self.parameters))
        # of each member: views of its values and memories, and of the number of its steps, once for each parameter
        self.rows = [
            (*([tensor[m] for tensor in tensors] for tensors in self.stacked), list(self.steps[m]))
            for m in range(len(groups))
        ]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], progress: Sequence[float]) -> None:
        """One step of AdamW with gradients [M, ...], each member with its own settings."""
        rates = [g.lr * decay_factor(g.lr_end, p) for g, p in zip(self.groups, progress, strict=True)]
        if (
            gradients[0].device.type == "cpu"
        ):  # there nothing is faster than torch's fused kernel, on a GPU launching it
            self.step_by_member(gradients, rates)
        else:
            self.step_together(gradients, rates)

    def step_by_member(self, gradients: Sequence[Tensor], rates: Sequence[float]) -> None:
        """Torch's own AdamW, member by member."""
        own = zip(*(gradient.contiguous().unbind() for gradient in gradients), strict=True)  # as the fused kernel wants
        for group, row, gradient, rate in zip(self.groups, self.rows, own, rates, strict=True):
            values, means, squares, steps = row
            adamw(
                values,
                list(gradient),
                means,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=group.betas[0],
                beta2=group.betas[1],
                lr=rate,
                weight_decay=group.weight_decay,
                eps=group.eps,
                maximize=False,
            )

    def step_together(self, gradients: Sequence[Tensor], rates: Sequence[float]) -> None:
        """The same arithmetic (Loshchilov & Hutter 2019, arXiv:1711.05101) for all members at once."""
        self.steps += 1
        first = self.stacked[0][0]
        settings = first.new_tensor(
            [
                [
                    1 - g.betas[0],
                    1 - g.betas[1],
                    1 - rate * g.weight_decay,
                    g.eps,
                ]
                for g, rate in zip(self.groups, rates, strict=True)
            ]
        ).unbind(1)
        settings = (*settings, *self._bias_corrections(self.steps[:, 0].to(first), rates))
        for value, gradient, mean, square in zip(self.stacked[0], gradients, *self.stacked[1:], strict=True):
            fresh, fresh_square, kept, eps, rate, unbiased = (s.view(-1, *(1,) * (value.dim() - 1)) for s in settings)
            mean.lerp_(gradient, fresh)
            square.lerp_(gradient.square(), fresh_square)
            value.mul_(kept).sub_(rate * mean / ((square * unbiased).sqrt_().add_(eps)))

    def _bias_corrections(self, taken: Tensor, rates: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Rate over the correction of the mean, and one over that of the square, after so many steps [M]."""
        betas = taken.new_tensor([group.betas for group in self.groups])
        first, second = (1 - betas ** taken[:, None]).unbind(1)
        return taken.new_tensor(rates) / first, 1 / second

    def on_host(self) -> list[list[np.ndarray]]:
        """Values, means and squares [M, ...] and number of steps [M], copied to the host in one piece each."""
        kinds = (*self.stacked, [self.steps[:, 0]])
        return [[tensor.cpu().numpy().copy() for tensor in kind] for kind in kinds]


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


def _group(
    optimizer: torch.optim.Optimizer, options: Mapping[str, Any], names: Mapping[Any, str], lr_end: float
) -> Group:
    parameters = options["params"]
    memories = [optimizer.state.get(parameter, {}) for parameter in parameters]
    means, squares = (
        [memory.get(key, torch.zeros_like(p)).detach() for memory, p in zip(memories, parameters, strict=True)]
        for key in ("exp_avg", "exp_avg_sq")
    )
    return Group(
        values={names[parameter]: parameter.detach() for parameter in parameters},
        means=means,
        squares=squares,
        step=memories[0].get("step", torch.zeros((), dtype=torch.float32)).detach(),
        lr=options.get("initial_lr", options["lr"]),
        betas=tuple(options["betas"]),
        eps=options["eps"],
        weight_decay=options["weight_decay"],
        lr_end=lr_end,
    )


def _statistics(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Running statistics of batch normalisation, by name."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    return [(f"{name}.{key}", buffer) for name, layer in layers for key, buffer in layer.named_buffers()]


def _factor(member: Member, progress: float, plateau: Tensor) -> float | Tensor:
    adversary = member.model.adversary
    return plateau[0] if adversary.schedule == "plateau" else adversary.factor(progress)
