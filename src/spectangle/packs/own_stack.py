"""A run that trains alone on a GPU: a stack of one."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from spectangle.packs.member import Member
from spectangle.packs.stack import Stack

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule
    from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["OwnStack"]


class OwnStack:
    """Train a model on a GPU, epoch by epoch, by a stack that has no other member: its steps are captured once and
    replayed, where launching the kernels of a small network one by one takes most of the time. On a CPU a model trains
    itself.
    """

    places = ("cuda",)
    in_company = False  # no other run has a part in it

    def __init__(self):
        self.has_trained = False
        self._stack: Stack | None = None
        self._stars: list[Tensor] = []

    def train_epoch(self, model: "DisentanglingAutoencoder") -> tuple[dict[str, Tensor], int] | None:
        """Train the model's epoch; return the sums of its metrics and the number of stars, or None: the epoch is its
        own to train.
        """
        self.has_trained = model.device.type in self.places
        if not self.has_trained:
            return None
        trainer, optimizers = model.trainer, model.optimizers(use_pl_optimizer=False)
        data: SpectraDataModule = trainer.datamodule  # pyright: ignore
        if self._stack is None:
            member = Member.of(model, optimizers, data.seed, trainer.max_epochs or 1)  # pyright: ignore
            self._stack, self._stars = Stack([member], str(trainer.precision)), data.training_tensors
        answer: Any = self._stack.train_epoch(self._stars, [model.current_epoch], len(data.train_dataloader()))[0]
        return self._stack.members[0].take_over(answer, optimizers)  # pyright: ignore

    def end_training(self) -> None:
        """Leave the GPU's memory to what is measured now."""
        self._stack, self._stars = None, []
