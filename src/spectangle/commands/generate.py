"""Generate spectra with changed labels: spectangle generate run=RUN set.teff=6000 out=generated.h5"""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from spectangle.commands.app import hydra_app


@hydra_app("generate")
def main(cfg: DictConfig) -> None:
    from spectangle.generation.check import check_generation
    from spectangle.generation.generate import generate
    from spectangle.threads import use_threads

    options: dict[str, Any] = {str(key): value for key, value in cfg.items()} | {"set": OmegaConf.to_container(cfg.set)}
    use_threads(options.pop("threads"))
    if options.pop("check"):
        check_generation(cfg.run, survey=cfg.survey)
    else:
        generate(**options)
