"""Send offline runs to W&B: python sync.py sweep=DIR"""

from omegaconf import DictConfig

from spectangle.cli import hydra_app


@hydra_app("sync")  # @hydra.main: by these words Hydra's tab completion knows a command
def main(cfg: DictConfig) -> None:
    from spectangle.tracking.sync import sync

    sync(cfg.sweep or cfg.run, cfg.list, cfg.timeout_s)


if __name__ == "__main__":
    main()
