"""Parameters of several models stacked, and steps of AdamW in which each has its own settings.

Shapes: M models.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from spectangle.model.losses import decay_factor
from spectangle.packs.member import Group

__all__ = ["StackedGroup", "adamw_step", "copy_each"]


ALIGNED = 64  # numbers: a tensor begins where the fast kernels of matrix products can read it


class StackedGroup:
    """A group of parameters of all members, by name [M, ...], which learn, and what Adam remembers of each member.

    Arguments:
        groups: One of each member, on one device.
        together: Whether a step is taken for all members at once. Values, means and squares then lie in one tensor
            each, [M, all numbers of a member], so that a step is a few kernels, however many parameters there are: best
            on a GPU. On a CPU nothing is faster than torch's fused kernel, member by member.
    """

    def __init__(self, groups: Sequence[Group], together: bool):
        self.groups, self.together = groups, together
        like = next(iter(groups[0].values.values()))
        self.places, width = _places([value.shape for value in groups[0].values.values()])
        kinds = (
            [list(group.values.values()) for group in groups],
            [g.means for g in groups],
            [g.squares for g in groups],
        )
        self.stacked = [[torch.stack(tensors) for tensors in zip(*kind, strict=True)] for kind in kinds]
        if together:
            self.flat = [like.new_zeros(len(groups), width) for _ in kinds]
            places = [self._views(flat) for flat in self.flat]
            for views, tensors in zip(places, self.stacked, strict=True):
                copy_each(views, tensors)
            self.stacked = places
            self.gradient = torch.zeros_like(self.flat[0])
        learning = (value.detach().requires_grad_() for value in self.stacked[0])
        self.parameters = dict(zip(groups[0].values, learning, strict=True))
        steps = torch.stack([group.step for group in groups]).to(like.device)
        self.steps = steps[:, None].repeat(1, 1 if together else len(self.parameters))
        settings = [(*group.betas, group.weight_decay, group.eps) for group in groups]
        self.alike = len(set(settings)) == 1 and like.dtype == torch.float32  # as torch's fused kernel wants the rate
        self.settings = torch.tensor(settings, dtype=torch.float64, device=like.device).unbind(1)
        # of each member: views of its values and memories, and of the number of its steps, as often as AdamW wants it
        self.rows = [
            (*([tensor[m] for tensor in tensors] for tensors in self.stacked), list(self.steps[m]))
            for m in range(len(groups))
        ]

    def rates(self, progress: Sequence[float]) -> list[float]:
        """Rate of each member at its progress from 0 to 1."""
        return [g.lr * decay_factor(g.lr_end, p) for g, p in zip(self.groups, progress, strict=True)]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """One step of AdamW with gradients [M, ...], each member with its own settings and rates [M]; taken together,
        with rates [1] if they have the same.
        """
        if self.together:
            self.step_together(gradients, rates)
        else:
            self.step_by_member(gradients, rates.tolist())

    def step_by_member(self, gradients: Sequence[Tensor], rates: Sequence[float]) -> None:
        """Torch's own AdamW, member by member."""
        own = zip(*(gradient.contiguous().unbind() for gradient in gradients), strict=True)  # as the fused kernel wants
        for group, row, gradient, rate in zip(self.groups, self.rows, own, rates, strict=True):
            values, means, squares, steps = row
            adamw_step(values, gradient, means, squares, steps, rate, **_settings(group))

    def step_together(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """The same (Loshchilov & Hutter 2019, arXiv:1711.05101) for all members at once; where one rate and the same
        settings are for all, by torch's kernel, which reads and writes everything once.
        """
        value, mean, square = self.flat
        copy_each(self._views(self.gradient), gradients)
        if self.alike and len(rates) == 1:
            values, own, means, squares, steps = (
                list(tensor) for tensor in (value, self.gradient, mean, square, self.steps[:, 0])
            )
            adamw_step(values, own, means, squares, steps, rates[0].float(), **_settings(self.groups[0]))
            return
        self.steps += 1
        gradient = self.gradient
        beta, beta_square, decay, eps = self.settings
        taken = self.steps[:, 0].to(rates)
        spread = (1 - beta_square**taken).sqrt()
        settings = (1 - beta, 1 - beta_square, 1 - rates * decay, eps * spread, rates * spread / (1 - beta**taken))
        fresh, fresh_square, kept, eps, rate = (setting.to(value)[:, None] for setting in settings)
        mean.lerp_(gradient, fresh)
        square.lerp_(gradient.square_(), fresh_square)
        if any(group.weight_decay for group in self.groups):
            value.mul_(kept)
        change = square.sqrt().add_(eps)
        value.addcmul_(torch.div(mean, change, out=change), rate, value=-1)

    def on_host(self) -> list[list[np.ndarray]]:
        """Values, means and squares [M, ...] and number of steps [M], copied to the host."""
        if self.together:  # in one piece each
            kinds = [self._views(_copied(flat)) for flat in self.flat]
        else:
            kinds = [[_copied(tensor) for tensor in kind] for kind in self.stacked]
        return [[tensor.numpy() for tensor in kind] for kind in (*kinds, [_copied(self.steps[:, 0])])]

    def _views(self, flat: Tensor) -> list[Tensor]:
        """The parameters' tensors [M, ...] inside one [M, all numbers of a member]."""
        return [flat[:, place].view(-1, *shape) for place, shape in self.places]


def _settings(group: Group) -> dict[str, Any]:
    return {"betas": group.betas, "weight_decay": group.weight_decay, "eps": group.eps}


def adamw_step(
    values: Sequence[Tensor],
    gradients: Sequence[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
    rate: float | Tensor,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """Torch's own AdamW, at a rate that may lie on the device, which its optimizers take with a warning at best."""
    kept = {"weight_decay": weight_decay, "eps": eps, "beta1": betas[0], "beta2": betas[1]}
    options = {"fused": True, "amsgrad": False, "maximize": False, "lr": rate, **kept}
    adamw(list(values), list(gradients), means, squares, [], steps, **options)  # pyright: ignore


def _copied(tensor: Tensor) -> Tensor:
    """A copy on the host."""
    return tensor.to("cpu", copy=True)


def copy_each(places: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy tensors to their places, in one kernel where torch can."""
    torch._foreach_copy_(list(places), list(tensors))  # pyright: ignore[reportPrivateImportUsage]


def _places(shapes: Sequence[torch.Size]) -> tuple[list[tuple[slice, torch.Size]], int]:
    """Where tensors of some shapes lie behind one another, and how many numbers that takes."""
    places, end = [], 0
    for shape in shapes:
        places.append((slice(end, end + shape.numel()), shape))
        end += -(-shape.numel() // ALIGNED) * ALIGNED
    return places, end
