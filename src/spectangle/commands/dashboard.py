"""Create or update the W&B dashboard: spectangle dashboard entity=me project=spectangle"""

from omegaconf import DictConfig

from spectangle.commands.app import hydra_app


@hydra_app("dashboard")
def main(cfg: DictConfig) -> None:
    from spectangle.console import console
    from spectangle.errors import SpectangleError
    from spectangle.runs.folder import Run
    from spectangle.synthetic import LABELS
    from spectangle.tracking.workspace import publish

    labels = list(cfg.labels or (Run(cfg.run).units if cfg.run else LABELS))
    if not labels:
        raise SpectangleError(
            f"{cfg.run} has not read its survey yet, so its labels are not known; name them: labels=[vsini,age]."
        )
    where = publish(cfg.entity, cfg.project, cfg.name, labels, cfg.save, pair=cfg.pair, survey=cfg.survey)
    console.print(f"The dashboard is {where}", markup=False)
