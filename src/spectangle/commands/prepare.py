"""Make a survey file from archive files: spectangle prepare spectra=rvs/ labels.apogee=allStar.fits survey=my.h5"""

from omegaconf import DictConfig, OmegaConf

from spectangle.commands.app import hydra_app
from spectangle.configs.constructors import check_arguments
from spectangle.errors import SpectangleError


@hydra_app("prepare")
def main(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    try:
        from spectangle.archives import prepare
    except ModuleNotFoundError as error:
        raise SpectangleError(
            f"spectangle prepare needs {error.name}, which is not installed: pip install 'spectangle[archives]'."
        ) from None
    if missing := sorted(OmegaConf.missing_keys(cfg) - {"archive"}, key=len):
        raise SpectangleError(f"'{missing[0]}' is not given; name it: spectangle prepare {missing[0]}=...")
    check_arguments(cfg)
    prepare(
        archive=instantiate(cfg.archive, _convert_="all"),
        survey=cfg.survey,
        labels=instantiate(cfg.labels, _convert_="all"),
        cuts=instantiate(cfg.cuts, _convert_="all"),
        pixels=instantiate(cfg.pixels, _convert_="all"),
        workers=cfg.workers,
        max_bad_rows=cfg.max_bad_rows,
        overwrite=cfg.overwrite,
        report=cfg.report,
    )
