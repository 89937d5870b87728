"""What a model asks of a trainer and of its stars before the first step, whoever made them."""

from typing import Any

from spectangle.errors import SpectangleError

__all__ = ["set_up"]


def set_up(model: Any, trainer: Any, stage: str) -> None:
    """Calibrate a DisentanglingAutoencoder that is not, on the training stars, and give all stars the classes of *its*
    bins: those of the model that was trained on them before may be others.

    Raises:
        SpectangleError: There is no data module, or the trainer does not go epoch by epoch.
    """
    data = trainer.datamodule
    if not hasattr(data, "classify_with"):
        came = "no data module" if data is None else f"the data module {type(data).__name__}"
        raise SpectangleError(
            f"The trainer has {came}; a DisentanglingAutoencoder is trained and validated on a SpectraDataModule, "
            "which has the order of the stars, their noise and their classes: trainer.fit(model, datamodule=data)."
        )
    if stage == "fit":
        _check_epochs(trainer)
    if not model.adversary.calibrated:
        learn = model.recall if model.loaded else model.calibrate
        learn(data.train.flux, data.train.targets)
    data.classify_with(model.adversary.classify)


def _check_epochs(trainer: Any) -> None:
    """Lambda and both rates are schedules over the epochs, and what an epoch has learnt is taken when it is validated:
    once, at its end.
    """
    if trainer.max_epochs is None or trainer.max_epochs < 1:
        raise SpectangleError(
            f"The trainer's max_epochs is {trainer.max_epochs}; lambda and both learning rates are schedules over the "
            "epochs: give their number, as Trainer(max_epochs=20)."
        )
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_interval
    if every != 1 or not (isinstance(interval, float) and interval == 1.0) or trainer.limit_val_batches == 0:
        raise SpectangleError(
            f"The trainer has check_val_every_n_epoch={every}, val_check_interval={interval} and "
            f"limit_val_batches={trainer.limit_val_batches}; each epoch is validated once, when it ends: leave them "
            "out."
        )
