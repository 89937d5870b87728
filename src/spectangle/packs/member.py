"""A model that trains in a pack: what it hands over, and what it gets back.

The state that an epoch changes travels as numpy arrays (see :meth:`spectangle.packs.stack.Stack.states`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["STRENGTHS", "Group", "Member", "running_statistics"]

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
            (adversary.entangled, adversary.disentangled, adversary.regressed, adversary.steps, adversary.n_outputs),
            (adversary.objective, adversary.loss, adversary.condition_on, adversary.lambda_unit, adversary.ensemble),
            repr(self.model),  # layers without parameters
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

    def take_over(
        self, answer: Mapping[str, Any], optimizers: Sequence[torch.optim.Optimizer]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Write what an epoch of :meth:`Stack.train_epoch` has changed into the model and its optimizers; return the
        sums of its metrics, and of how many stars each is.
        """
        self.load(answer["state"], optimizers)
        sums = {name: torch.tensor(total, device=self.device) for name, total in answer["sums"].items()}
        counts = {name: torch.as_tensor(count, device=self.device) for name, count in answer["counts"].items()}
        return sums, counts

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
                    _write(parameter, value)
                    memory = optimizer.state[parameter]
                    for key, kept in (("exp_avg", mean), ("exp_avg_sq", square)):
                        _write(memory.setdefault(key, torch.empty_like(parameter)), kept)
                    memory["step"] = torch.tensor(step, device=parameter.device)
            for name, value in state["statistics"].items():
                _write(buffers[name], value)


def _write(tensor: Tensor, values: np.ndarray) -> None:
    """Write values that may be read only, which torch would not take as they are."""
    if tensor.device.type == "cpu":
        np.copyto(tensor.detach().numpy(), values)
    else:
        tensor.copy_(torch.tensor(values))


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


def running_statistics(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Running statistics of batch normalisation, by name."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    return [(f"{name}.{key}", buffer) for name, layer in layers for key, buffer in layer.named_buffers()]
