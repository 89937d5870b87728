"""Predict labels of stars with a trained run: spectangle predict run=RUN spectra=FILE out=stars.ecsv"""

from omegaconf import DictConfig

from spectangle.commands.app import hydra_app


@hydra_app("predict")
def main(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    from spectangle.inference.predict import predict
    from spectangle.threads import use_threads

    use_threads(cfg.threads)
    predict(
        run=cfg.run,
        spectra=cfg.spectra,
        out=cfg.out,
        wavelength=cfg.wavelength,
        flux_error=cfg.flux_error,
        source_id=cfg.source_id,
        coverage=cfg.coverage,
        latents=cfg.latents,
        limits=instantiate(cfg.limits),
        survey=cfg.survey,
        max_bad_rows=cfg.max_bad_rows,
        wavelength_unit=cfg.wavelength_unit,
        medium=cfg.medium,
        columns=cfg.columns,
        disentangled=cfg.disentangled,
        overwrite=cfg.overwrite,
    )
