"""What a run that was interrupted needs to go on as if nothing had happened."""

import logging
import pickle
import signal
import threading
from typing import Any

import hydra
import lightning as L
import torch
from omegaconf import DictConfig

from spectangle.data.module import SpectraDataModule
from spectangle.errors import SpectangleError
from spectangle.model.autoencoder import DisentanglingAutoencoder
from spectangle.runs.folder import Run, metric_value
from spectangle.training.measured import objective_names
from spectangle.training.progress import History

__all__ = ["Continuity", "Resumed", "measure_last_epoch", "resumable", "threads_before"]

log = logging.getLogger(__name__)


class Resumed:
    """Where a run goes on.

    Arguments:
        path: The checkpoint.
        epoch: The last epoch that it holds.
    """

    def __init__(self, path: str, epoch: int):
        self.path, self.epoch = path, epoch


class Continuity(L.Callback):
    """Let a training that goes on, or that has nothing left to train, know what its last epoch measured; leave SIGTERM
    alone, and tell a pack when the training is over.

    Lightning takes SIGTERM over when it starts, and lets a terminated run exit with 0.

    Arguments:
        run: The run.
        resumed: Where it goes on, if it does.
    """

    def __init__(self, run: Run, resumed: Resumed | None):
        self.run, self.resumed = run, resumed

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)
        if self.resumed is not None:
            row = _row(self.run, self.resumed.epoch)
            trainer.callback_metrics.update(
                {key: torch.tensor(value) for key, value in row.items() if key.startswith(("train/", "val/"))}
            )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hold nobody up: what is measured now is this run's own, and the others of its pack train on."""
        if (pack := getattr(pl_module, "pack", None)) is not None:
            pack.end_training()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread() and self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)


def resumable(run: Run) -> Resumed | None:
    """The checkpoint where an interrupted run goes on; one that was cut off while it was written is removed."""
    path = run.last_checkpoint
    for part in path.parent.glob("*.part"):  # of one that was killed while it wrote
        part.unlink(missing_ok=True)
    if not path.is_file():
        return None
    try:
        epoch = int(torch.load(path, map_location="cpu", weights_only=True)["epoch"])
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
        log.warning("%s was cut off while it was written: the run starts again.", path)
        path.unlink()
        return None
    log.info("resumed from %s", path)
    return Resumed(str(path), epoch)


def threads_before(run: Run) -> int | None:
    """CPU threads of the last start of a run: sums of another number of threads are rounded in another way. None where
    nobody wrote it down.
    """
    try:
        return run.manifest.get("threads")
    except SpectangleError:  # the first start
        return None


def measure_last_epoch(
    cfg: DictConfig, run: Run, resumed: Resumed | None, model: DisentanglingAutoencoder, data: SpectraDataModule
) -> None:
    """Validate the last epoch once more if the training is over and its row of metrics.csv lacks what the run is judged
    by.
    """
    if resumed is None or resumed.epoch + 1 < cfg.trainer.max_epochs:
        return
    row, wanted = _row(run, resumed.epoch), [name for name in objective_names(cfg) if str(name).startswith("val/")]
    if all(metric_value(row, name) is not None for name in ["val/reconstruction", *wanted]):
        return
    log.info("the training is over, but not all of its last epoch was written down: it is measured again")
    callbacks = [
        hydra.utils.instantiate(node) for node in cfg.callbacks.values() if node and node.get("every_n_epochs")
    ]
    trainer: Any = hydra.utils.instantiate(cfg.trainer, callbacks=callbacks, logger=History(str(run.path)))
    trainer.fit_loop.epoch_progress.current.completed = resumed.epoch  # what is measured belongs to that epoch
    trainer.validate(model, data, ckpt_path=resumed.path, weights_only=True, verbose=False)


def _row(run: Run, epoch: int) -> dict[str, float]:
    return next((row for row in run.history if row.get("epoch") == epoch), {})
