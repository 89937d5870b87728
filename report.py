"""Read a sweep: python report.py sweep=DIR, or compare runs: python report.py kind=diff runs=[RUN1,RUN2]"""

import sys

from omegaconf import DictConfig

from spectangle.cli import hydra_app


@hydra_app("report")  # @hydra.main: by these words Hydra's tab completion knows a command
def main(cfg: DictConfig) -> None:
    from spectangle.errors import SpectangleError
    from spectangle.reports.make import KINDS

    if cfg.kind not in KINDS:
        raise SpectangleError(f"kind is {cfg.kind}; it must be one of {', '.join(KINDS)}.")
    KINDS[cfg.kind](cfg)


if __name__ == "__main__":
    sys.argv = ["hide_failed=true" if argument == "--hide-failed" else argument for argument in sys.argv]
    main()
