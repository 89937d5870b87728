"""Send offline runs to W&B: spectangle sync sweep=DIR"""

from omegaconf import DictConfig

from spectangle.commands.app import hydra_app


@hydra_app("sync")
def main(cfg: DictConfig) -> None:
    from spectangle.tracking.offline_runs import sync

    sync(cfg.sweep or cfg.run, cfg.list, cfg.timeout_s)
