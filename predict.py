"""Predict labels of stars with a trained run: python predict.py run=RUN spectra=FILE out=stars.ecsv"""

from omegaconf import DictConfig

from spectangle.cli import hydra_app


@hydra_app("predict")  # @hydra.main: by these words Hydra's tab completion knows a command
def main(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    from spectangle.prediction.predict import predict
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
        erased=cfg.erased,
        overwrite=cfg.overwrite,
    )


if __name__ == "__main__":
    main()
