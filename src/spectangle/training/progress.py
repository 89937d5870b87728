"""What a run says while it trains, and the history that it writes: one row per epoch."""

import logging
import statistics
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from spectangle.console import progress_bar
from spectangle.runs.folder import Run

if TYPE_CHECKING:
    from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["EpochProgress", "History"]

log = logging.getLogger(__name__)


class EpochProgress(L.Callback):
    """Show a bar on a terminal, and one line per epoch everywhere.

    The line gives the reconstruction error and, for each label, how many nats the discriminator gains over chance. At
    the end, ``time/epoch`` is the median of the seconds that an epoch's training took, without validation and what is
    measured there.
    """

    def __init__(self):
        self._seconds: list[float] = []
        self.metrics: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: "DisentanglingAutoencoder") -> None:
        self._bar = progress_bar()
        self._bar.start()
        self._task = self._bar.add_task("training", total=None)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: "DisentanglingAutoencoder") -> None:
        self._start = time.perf_counter()
        self._bar.reset(
            self._task,
            total=int(trainer.num_training_batches),
            description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: "DisentanglingAutoencoder", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._bar.advance(self._task)
        if trainer.is_last_batch:
            self._seconds.append(time.perf_counter() - self._start)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: "DisentanglingAutoencoder") -> None:
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        gains = " ".join(
            f"{name} {metrics.get(f'val/discriminator_gain/{name}', float('nan')):+.2f}"
            for name in pl_module.adversary.names
        )
        log.info(
            "epoch %d/%d  reconstruction %.3e (validation %.3e)  nats over chance: %s  %.1f s",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            metrics.get("train/reconstruction", float("nan")),
            metrics.get("val/reconstruction", float("nan")),
            gains,
            time.perf_counter() - self._start,
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: "DisentanglingAutoencoder") -> None:
        self._bar.stop()
        if self._seconds:
            self.metrics["time/epoch"] = statistics.median(self._seconds)

    def on_exception(self, trainer: L.Trainer, pl_module: "DisentanglingAutoencoder", exception: BaseException) -> None:
        if hasattr(self, "_bar"):
            self._bar.stop()


class History(Logger):
    """Write ``metrics.csv``, one row per epoch; a resumed run goes on in the same file.

    Arguments:
        folder: Run folder.
    """

    def __init__(self, folder: str):
        super().__init__()
        self._run = Run(folder, must_exist=False)
        self._rows = {int(row["epoch"]): row for row in self._run.history}

    @property
    def name(self) -> str:
        return self._run.path.name

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The config is in ``.hydra/`` already."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if "epoch" in metrics:
            self._rows.setdefault(int(metrics["epoch"]), {}).update(
                {key: float(value) for key, value in metrics.items()}
            )
            self.save()  # at once, before the epoch's checkpoint: what was measured is not measured again

    @rank_zero_only
    def save(self) -> None:
        if self._rows:
            self._run.write_history([self._rows[epoch] for epoch in sorted(self._rows)])
