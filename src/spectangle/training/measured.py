"""Metric paths that a config names, against what its run measures."""

from collections.abc import Iterable
from typing import Any

import lightning as L
from omegaconf import DictConfig, ListConfig, OmegaConf

from spectangle.errors import SpectangleError, did_you_mean
from spectangle.runs.folder import metric_value

__all__ = ["MeasuredNames", "objective_names", "objectives"]


class MeasuredNames(L.Callback):
    """Refuse a misspelled objective, or a metric that no checkpoint could monitor, once each callback has measured
    validation stars: after the training it would be too late.

    Arguments:
        cfg: The run's config.

    Raises:
        SpectangleError: Nothing measures what the config names.
    """

    def __init__(self, cfg: DictConfig):
        monitored = OmegaConf.select(cfg, "callbacks.checkpoint.monitor")
        self.named = dict.fromkeys(map(str, objective_names(cfg)), "objective")
        self.named |= {str(monitored): "callbacks.checkpoint.monitor"} if monitored else {}

    def on_validation_end(self, trainer: Any, pl_module: L.LightningModule) -> None:
        every = max(getattr(callback, "every_n_epochs", 0) for callback in trainer.callbacks)
        if trainer.sanity_checking or trainer.current_epoch + 1 < every:
            return
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for name, key in self.named.items():
            if name.startswith(("train/", "val/")) and metric_value(measured, name) is None:
                raise SpectangleError(_not_measured(key, name, measured))


def objective_names(cfg: DictConfig) -> list[str]:
    """The metric paths that the config names as objective."""
    return list(cfg.objective) if isinstance(cfg.objective, ListConfig) else [cfg.objective]


def objectives(cfg: DictConfig, metrics: dict[str, float]) -> float | tuple[float, ...]:
    """The metric(s) that the config names as objective, for a sweeper.

    Raises:
        SpectangleError: One was not measured.
    """
    names = objective_names(cfg)
    values = [metric_value(metrics, name) for name in names]
    for name, value in zip(names, values, strict=True):
        if value is None:
            raise SpectangleError(_not_measured("objective", name, metrics))
    found: Any = tuple(values)
    return found if isinstance(cfg.objective, ListConfig) else found[0]


def _not_measured(key: str, name: str, measured: Iterable[str]) -> str:
    """A sentence about a metric path that a key names and a run lacks."""
    names = sorted(measured)
    return (
        f"{key} names {name}, which this run does not measure.{did_you_mean(name, names)} metrics.csv has what is "
        "measured in each epoch, metrics.json of a finished run all of it; give another one, with resume=RUN to go on."
    )
