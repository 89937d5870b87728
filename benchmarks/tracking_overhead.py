"""Does W&B slow training? The share of training time that logger=wandb (offline) takes, on the embedded survey.

    python benchmarks/tracking_overhead.py [epochs] [stars] [pairs]

Two measures: the seconds that training spends inside the logger over the seconds of all epochs (robust on a busy
machine), and, for pairs > 0, the median epoch with wandb against that with csv, in alternating runs.
"""

import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spectangle.tracking.wandb_run import WandbRun

ROOT = Path(__file__).parents[1]
SETUP = [
    "callbacks.probes=null",
    "callbacks.regressor=null",
    "callbacks.figures=null",
    "lambdas=first_pair",
    "threads=1",
    "hydra.job_logging.root.handlers=[file]",
]


def main() -> None:
    epochs, stars, pairs = (int(word) for word in (sys.argv[1:] + ["20", "8000", "0"][len(sys.argv) - 1 :])[:3])
    options = [*SETUP, f"trainer.max_epochs={epochs}", f"data.n_stars={stars}"]
    with tempfile.TemporaryDirectory() as folder:
        inside = seconds_inside(options, Path(folder) / "inside")
        gaps = epoch_seconds(Path(folder) / "inside")
        epoch = statistics.mean(gaps)
        print(
            f"{1e3 * inside / epochs:.2f} ms in W&B for an epoch of {1e3 * epoch:.0f} ms: "
            f"{inside / (epochs * epoch):.2%}"
        )
        ratios = [compare(options, Path(folder), number) for number in range(pairs)]
        if ratios:
            print(f"wandb offline against csv: median {statistics.median(ratios):+.1%} of {pairs} pairs")


def seconds_inside(options: list[str], folder: Path) -> float:
    """Run once in this process and add up what training waits for the logger."""
    spent = 0.0

    def timed(method):
        def call(self, *arguments, **more):
            nonlocal spent
            start = time.perf_counter()
            method(self, *arguments, **more)
            spent += time.perf_counter() - start

        return call

    WandbRun.log_metrics, WandbRun.after_save_checkpoint = (
        timed(WandbRun.log_metrics),
        timed(WandbRun.after_save_checkpoint),
    )
    sys.argv = ["train.py", *options, "logger=wandb", "logger.mode=offline", f"hydra.run.dir={folder}"]
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    return spent


def compare(options: list[str], folder: Path, number: int) -> float:
    """The median epoch with wandb over that with csv, minus one."""
    seconds = {}
    for logger in ("csv", "wandb") if number % 2 else ("wandb", "csv"):
        run, own = folder / f"{number}-{logger}", ["logger.mode=offline"] if logger == "wandb" else []
        subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *options, f"logger={logger}", *own, f"hydra.run.dir={run}"],
            check=True,
            capture_output=True,
        )
        seconds[logger] = statistics.median(epoch_seconds(run))
    return seconds["wandb"] / seconds["csv"] - 1


def epoch_seconds(folder: Path) -> list[float]:
    """Seconds between the log lines of epochs: a whole epoch with all of its logging."""
    lines = [line for line in (folder / "train.log").read_text().splitlines() if " epoch " in line]
    stamps = [time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")) + int(line[20:23]) / 1000 for line in lines]
    return [after - before for before, after in zip(stamps, stamps[1:], strict=False)]


if __name__ == "__main__":
    main()
