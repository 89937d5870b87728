"""A command that stands in for train.py in tests of sweeps: its runs take milliseconds and misbehave when asked to.

Every epoch is a line in ``epochs.log`` and a new ``last.ckpt``; a run that goes on starts after the last one. Its score
depends on all of its epochs, so that a resumed run that lost or repeated one would show.
"""

import os
import signal
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig

from spectangle.commands.app import hydra_app
from spectangle.files import write_beside
from spectangle.runs.folder import Run
from spectangle.runs.ownership import check_owner, owned
from spectangle.runs.sweep_link import Pruned, link
from spectangle.sweeps import leaderboard, leaderboard_page, live_page

live_page.EVERY_S = float(os.environ.get("PAGE_EVERY_S", live_page.EVERY_S))
# its report has no importances: fANOVA loads scikit-learn, a second for each of some sixty sweeps
leaderboard_page.LEAST = 1_000_000
leaderboard._ecsv = lambda *_: ""  # astropy's tables take half a second to load; test_report.py reads one back


@hydra_app()
def main(cfg: DictConfig) -> float | list[float]:
    run = Run(HydraConfig.get().runtime.output_dir, must_exist=False)
    if not run.finished:
        with owned(run.path, replace=link.claimed):
            work(cfg, run)
    names = cfg.objective if isinstance(cfg.objective, ListConfig) else [cfg.objective]
    return [run.metrics[name] for name in names]


def work(cfg: DictConfig, run: Run) -> None:
    """Train what is left."""
    state = Path(run.last_checkpoint)
    epoch, score = (eval(state.read_text())) if state.exists() else (0, 0.0)
    tries = attempts(run.path)
    while epoch < cfg.epochs:
        time.sleep(cfg.epoch_s)
        score += (cfg.x - 0.3) ** 2 + (cfg.y - 2) ** 2 + 0.01 * cfg.seed + 0.001 * epoch
        epoch += 1
        check_owner(run.path)
        with open(run.path / "epochs.log", "a") as file:  # first: a stop in between repeats a line and loses none
            file.write(f"{epoch}\n")
        write_beside(state, repr((epoch, score)))
        if link.report(epoch, score):
            raise Pruned(f"stopped in epoch {epoch}")
        if epoch >= cfg.fail_epoch and tries <= cfg.fail_tries:
            misbehave(cfg.fail)
    if tries <= cfg.fail_tries:
        misbehave(cfg.fail)  # also when all epochs were done in earlier attempts
    value = (
        float("nan")
        if cfg.fail == "not_a_number" and tries <= cfg.fail_tries
        else float("inf")
        if cfg.fail == "infinite"
        else score
    )
    run.write_metrics({"score": value, "other": -cfg.x})


def attempts(folder: Path) -> int:
    """How often this run was started, this time included."""
    with open(folder / "starts.log", "a") as file:
        file.write(f"{os.getpid()}\n")
    return len((folder / "starts.log").read_text().splitlines())


def misbehave(how: str) -> None:
    if how == "raise":
        raise ValueError("a deliberate failure")
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(600)


if __name__ == "__main__":
    main()
