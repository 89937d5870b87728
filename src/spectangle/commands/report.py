"""Read a sweep: spectangle report sweep=DIR, or compare runs: spectangle report kind=diff runs=[RUN1,RUN2]"""

import sys

from omegaconf import DictConfig

from spectangle.commands.app import hydra_app


@hydra_app("report")
def report(cfg: DictConfig) -> None:
    from spectangle.errors import SpectangleError
    from spectangle.reports.make import KINDS

    if cfg.kind not in KINDS:
        raise SpectangleError(f"kind is {cfg.kind}; it must be one of {', '.join(KINDS)}.")
    KINDS[cfg.kind](cfg)


def main() -> None:
    """Run the command; ``--hide-failed`` is a word for ``hide_failed=true``."""
    sys.argv = ["hide_failed=true" if argument == "--hide-failed" else argument for argument in sys.argv]
    report()
