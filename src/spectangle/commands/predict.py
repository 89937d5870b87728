"""Predict labels of stars with a trained run: spectangle predict run=RUN spectra=FILE out=stars.ecsv"""

from typing import Any

from omegaconf import DictConfig

from spectangle.commands.app import hydra_app


@hydra_app("predict")
def main(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    from spectangle.inference.predict import predict
    from spectangle.threads import use_threads

    options: dict[str, Any] = {str(key): value for key, value in cfg.items()} | {"limits": instantiate(cfg.limits)}
    use_threads(options.pop("threads"))
    predict(**options)
