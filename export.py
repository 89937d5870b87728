"""Export a trained model to hand to others: python export.py run=RUN out=exported"""

from omegaconf import DictConfig

from spectangle.cli import hydra_app


@hydra_app("export")  # @hydra.main: by these words Hydra's tab completion knows a command
def main(cfg: DictConfig) -> None:
    from spectangle.export.package import export

    export(run=cfg.run, out=cfg.out, onnx=cfg.onnx, survey=cfg.survey, overwrite=cfg.overwrite)


if __name__ == "__main__":
    main()
