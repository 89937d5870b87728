"""The callback that reports a run's objective to its sweep at each epoch, and stops it when the sweep says so."""

import logging
import math

import lightning as L
from omegaconf import DictConfig

from spectangle.runs.sweep_link import Pruned, link

__all__ = ["ReportToSweep", "sweep_callbacks"]

log = logging.getLogger(__name__)


class ReportToSweep(L.Callback):
    """Report a metric at the end of each epoch.

    Arguments:
        metric: Metric path, for instance ``val/reconstruction``.

    Raises:
        Pruned: The sweep's pruner has decided to stop the run.
    """

    def __init__(self, metric: str):
        self.metric = metric

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        value = trainer.callback_metrics.get(self.metric)
        if value is None:
            if trainer.current_epoch == 0:
                log.warning("%s is not measured at every epoch: this run cannot be pruned.", self.metric)
        elif math.isfinite(float(value)) and link.report(trainer.current_epoch, float(value)):
            raise Pruned(
                f"stopped by the pruner in epoch {trainer.current_epoch + 1} at {self.metric} {float(value):.4g}"
            )


def sweep_callbacks(cfg: DictConfig) -> list[L.Callback]:
    """What a run in a pruning sweep needs besides its own callbacks; nothing in any other run."""
    return [ReportToSweep(cfg.objective)] if link.pipe is not None and isinstance(cfg.objective, str) else []
