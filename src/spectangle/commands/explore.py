"""Explore a trained run in the browser: spectangle explore run=RUN [save=explorer.html]"""

from omegaconf import DictConfig

from spectangle.commands.app import hydra_app


@hydra_app("explore")
def main(cfg: DictConfig) -> None:
    import logging

    from spectangle.errors import SpectangleError

    try:
        from spectangle.explorer import make_bundle, save_page, serve
    except ModuleNotFoundError as error:
        raise SpectangleError(f"The explorer needs {error.name}: pip install 'spectangle[app]'.") from None

    def make():
        return make_bundle(cfg.run, cfg.compare, cfg.stars, cfg.map_stars, cfg.survey)

    if cfg.save:
        path = save_page(make(), cfg.save, cfg.overwrite)
        logging.getLogger(__name__).info("%s  %.1f MB, works from disk", path, path.stat().st_size / 1e6)
    else:
        serve(make, cfg.host, cfg.port, cfg.open)
