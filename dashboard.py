"""Create or update the W&B dashboard: python dashboard.py entity=me project=spectangle"""

from omegaconf import DictConfig

from spectangle.cli import hydra_app


@hydra_app("dashboard")  # @hydra.main: by these words Hydra's tab completion knows a command
def main(cfg: DictConfig) -> None:
    from spectangle.console import console
    from spectangle.tracking.workspace import publish

    where = publish(cfg.entity, cfg.project, cfg.name, cfg.save, list(cfg.labels), pair=cfg.pair, survey=cfg.survey)
    console.print(f"The dashboard is {where}", markup=False)


if __name__ == "__main__":
    main()
