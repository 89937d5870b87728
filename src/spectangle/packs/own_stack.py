"""A run that trains alone on a GPU: a stack of one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from spectangle.packs.member import Member
from spectangle.packs.stack import Stack

if TYPE_CHECKING:
    from spectangle.data.stars import Batches
    from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["OwnStack"]


class OwnStack:
    """Train a model on a GPU, epoch by epoch, by a stack that has no other member: its steps are captured once and
    replayed, where launching the kernels of a small network one by one takes most of the time. On a CPU a model trains
    itself.

    Arguments:
        places: Types of the devices that it trains on.
    """

    in_company = False  # no other run has a part in it

    def __init__(self, places: Sequence[str] = ("cuda",)):
        self.places, self.has_trained = places, False
        self._stack: Stack | None = None

    def __reduce__(self) -> Any:
        return OwnStack, (self.places,)  # what a GPU holds stays there when the model is copied

    def train_epoch(self, model: "DisentanglingAutoencoder") -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Train the model's epoch; return the sums of its metrics and the number of stars, or None: the epoch is its
        own to train.
        """
        self.has_trained = model.device.type in self.places
        if not self.has_trained:
            return None
        trainer: Any = model.trainer
        optimizers: Any = model.optimizers(use_pl_optimizer=False)
        stars: Batches = trainer.train_dataloader
        if self._stack is None:
            member = Member.of(model, optimizers, trainer.datamodule.seed, trainer.max_epochs or 1)
            self._stack = Stack([member], trainer.precision)
        self._stack.reread()  # a callback may have changed the model between two epochs
        answer = self._stack.train_epoch(stars.tensors, [model.current_epoch], len(stars))[0]
        return self._stack.members[0].take_over(answer, optimizers)

    def end_training(self) -> None:
        """Leave the GPU's memory to what is measured now."""
        self._stack = None
