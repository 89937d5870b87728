"""Checkpoints of a run: ``best.ckpt``, which is used, and ``last.ckpt``, where a resumed run goes on."""

import os
from pathlib import Path
from typing import Any
from weakref import proxy

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from spectangle.files import whole_file
from spectangle.runs.ownership import check_owner

__all__ = ["BestCheckpoint", "LastCheckpoint"]


class _RunCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that belongs to its folder: the folder may be moved, and must not have been taken over.

    It is written beside and renamed. Lightning goes through the machine's temporary folder, and where that is another
    file system, the last step is a copy, which a kill cuts off.
    """

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        path = Path(filepath)
        check_owner(path.parents[1])
        with whole_file(path) as part:
            self._write(trainer, part)
        self._last_global_step_saved, self._last_checkpoint_saved = trainer.global_step, filepath
        for logger in trainer.loggers:
            logger.after_save_checkpoint(proxy(self))

    def _write(self, trainer: L.Trainer, part: Path) -> None:
        trainer.save_checkpoint(part, self.save_weights_only)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = str(self.dirpath)

        def moved(path: str) -> str:
            return os.path.join(here, os.path.basename(path)) if path else path

        paths = {
            key: moved(state_dict[key])
            for key in ("best_model_path", "kth_best_model_path", "last_model_path")
            if key in state_dict
        }
        scores = {moved(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict(state_dict | paths | {"best_k_models": scores, "dirpath": self.dirpath})


class BestCheckpoint(_RunCheckpoint):
    """Keep the epoch that the run's numbers are taken from as ``best.ckpt``.

    Arguments:
        dirpath: Folder of the checkpoints.
        monitor: Metric path; None = the last epoch.
        mode: ``min`` or ``max``.
        save_top_k: How many epochs to keep; others than the best as ``epoch=N.ckpt``.
        **options: Of Lightning's ModelCheckpoint.
    """

    def __init__(
        self, dirpath: str, monitor: str | None = None, mode: str = "min", save_top_k: int = 1, **options: Any
    ):
        options = {"filename": "best" if save_top_k == 1 else "{epoch}", "enable_version_counter": False} | options
        super().__init__(dirpath=dirpath, monitor=monitor, mode=mode, save_top_k=save_top_k, **options)

    def _should_skip_saving_checkpoint(self, trainer: L.Trainer) -> bool:
        """Also before the first epoch that measures what is monitored: ``every_n_epochs`` of its callback."""
        unknown = self.monitor is not None and self.monitor not in trainer.callback_metrics
        return unknown or super()._should_skip_saving_checkpoint(trainer)

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        best, path = Path(filepath).with_name("best.ckpt"), self.best_model_path
        if path and Path(path) != best and Path(path).is_file():
            with whole_file(best) as part:
                os.link(path, part)


class LastCheckpoint(_RunCheckpoint):
    """Keep every epoch as ``last.ckpt`` until the next one, whatever the best one is; where that was just written, as
    one more name of the same file.

    Arguments:
        dirpath: Folder of the checkpoints.
    """

    def __init__(self, dirpath: str):
        super().__init__(dirpath=dirpath, filename="last", enable_version_counter=False)

    def _write(self, trainer: L.Trainer, part: Path) -> None:
        best = [one for one in trainer.checkpoint_callbacks if isinstance(one, BestCheckpoint)]
        written = [
            one for one in best if one._last_global_step_saved == trainer.global_step and not one.save_weights_only
        ]
        try:
            os.link(written[0]._last_checkpoint_saved, part)
        except (IndexError, OSError):  # another epoch, not all of it, or a file system without links
            super()._write(trainer, part)
