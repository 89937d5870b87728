"""Create or update the W&B dashboard: spectangle dashboard entity=me project=spectangle"""

from omegaconf import DictConfig

from spectangle.commands.app import hydra_app


@hydra_app("dashboard")
def main(cfg: DictConfig) -> None:
    from spectangle.console import console
    from spectangle.tracking.workspace import publish

    where = publish(cfg.entity, cfg.project, cfg.name, cfg.save, list(cfg.labels), pair=cfg.pair, survey=cfg.survey)
    console.print(f"The dashboard is {where}", markup=False)
