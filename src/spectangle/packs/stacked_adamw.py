"""Parameters of several models stacked, and steps of AdamW in which each has its own settings.

Shapes: M models.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from spectangle.model.losses import decay_factor
from spectangle.packs.member import Group

__all__ = ["StackedGroup"]


class StackedGroup:
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
        # on a CPU nothing is faster than torch's fused kernel; on a GPU launching it for each member takes the time
        if gradients[0].device.type == "cpu":
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
                (1 - g.betas[0], 1 - g.betas[1], 1 - rate * g.weight_decay, g.eps)
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
