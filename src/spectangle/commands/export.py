"""Export a trained model to hand to others: spectangle export run=RUN out=exported"""

from omegaconf import DictConfig

from spectangle.commands.app import hydra_app


@hydra_app("export")
def main(cfg: DictConfig) -> None:
    from spectangle.export.package import export

    export(run=cfg.run, out=cfg.out, onnx=cfg.onnx, survey=cfg.survey, overwrite=cfg.overwrite)
