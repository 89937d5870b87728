"""A job and its logger, from the first second to the last: also a job that fails before training is seen to fail."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from spectangle.configs.nested import flat
from spectangle.tracking.identity import public_config
from spectangle.tracking.job_ending import ending
from spectangle.tracking.record import results

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule

__all__ = ["Session"]


class Session:
    """Open the logger that a config names, and close it as the job ends.

    Arguments:
        cfg: Config of the job; ``logger`` without ``_target_`` means no logger.
    """

    def __init__(self, cfg: DictConfig):
        self.cfg = cfg
        self.loggers: list[Logger] = [hydra.utils.instantiate(cfg.logger)] if "_target_" in cfg.logger else []

    def __enter__(self) -> "Session":
        for logger in self.loggers:
            if hasattr(logger, "begin"):
                logger.begin(self.cfg)  # pyright: ignore
            else:
                logger.log_hyperparams(flat(public_config(self.cfg, HydraConfig.get().runtime.choices)))
        return self

    def conclude(self, metrics: Mapping[str, float], signs: Mapping[str, str], data: "SpectraDataModule") -> None:
        """Hand over the final numbers of a job that is finished, and the stars that it was trained on."""
        for logger in self.loggers:
            if hasattr(logger, "conclude"):
                logger.conclude(metrics, signs, data)  # pyright: ignore
            else:
                logger.log_metrics(results(metrics))
                logger.save()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for logger in self.loggers:
            if hasattr(logger, "end"):
                logger.end(error)  # pyright: ignore
            else:
                logger.finalize("success" if error is None else ending(error))
