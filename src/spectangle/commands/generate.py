"""Generate spectra with changed labels: spectangle generate run=RUN set.teff=6000 out=generated.h5"""

from omegaconf import DictConfig, OmegaConf

from spectangle.commands.app import hydra_app


@hydra_app("generate")
def main(cfg: DictConfig) -> None:
    from spectangle.generation.check import check_generation
    from spectangle.generation.generate import generate
    from spectangle.threads import use_threads

    use_threads(cfg.threads)
    if cfg.check:
        check_generation(cfg.run, survey=cfg.survey)
        return
    generate(
        run=cfg.run,
        out=cfg.out,
        set=OmegaConf.to_container(cfg.set),  # pyright: ignore[reportArgumentType]
        spectra=cfg.spectra,
        source_id=cfg.source_id,
        n_stars=cfg.n_stars,
        survey=cfg.survey,
        figure=cfg.figure,
        overwrite=cfg.overwrite,
    )
