"""Seconds per epoch where the cores are ours alone, and where others want them too.

    python benchmarks/shared_cores.py                         as a user would run it
    python benchmarks/shared_cores.py --spin 300000 --stars 8000   with another spin count of the OpenMP threads

Quiet; beside a process that computes all the time; beside a second training; and, as a sweep, four workers at once.
Threads that
spin while they wait keep the core from the process that would let them go on: then two trainings cost twenty times the
time of one.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
QUIETLY: dict = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
BARE = ["lambdas=first_pair", "callbacks.regressor=null", "callbacks.probes=null", "callbacks.figures=null"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--spin", help="GOMP_SPINCOUNT; by default what spectangle.threads sets")
    parser.add_argument("--threads", default="null")
    parser.add_argument("--cases", nargs="+", default=["quiet", "busy", "second", "workers"])
    arguments = parser.parse_args()
    os.environ |= {"GOMP_SPINCOUNT": arguments.spin} if arguments.spin else {}
    with tempfile.TemporaryDirectory() as folder:
        for case in arguments.cases:
            seconds = measure(case, Path(folder), arguments)
            print(f"{case:8} {seconds:6.2f} s per epoch", flush=True)


def measure(case: str, folder: Path, arguments: argparse.Namespace) -> float:
    """Median over the epochs of one training, or of four that run as workers of a sweep."""
    if case == "workers":
        sweep = [
            *line(arguments, arguments.epochs),
            "-m",
            "hydra/sweeper=spectangle",
            "hydra/sweeper/sampler=grid",
            "seed=0,1,2,3",
        ]
        subprocess.run(
            [*sweep, f"hydra.sweep.dir={folder}/sweep", "sweep.workers=4"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return statistics.median(epoch_seconds(path.parent) for path in folder.glob("sweep/*/metrics.json"))
    others = {
        "busy": [sys.executable, "-c", "while True: pass"],
        "second": [*line(arguments, 10**6), f"hydra.run.dir={folder}/other"],
    }
    with beside(others.get(case)):
        subprocess.run(
            [*line(arguments, arguments.epochs), f"hydra.run.dir={folder}/{case}"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return epoch_seconds(folder / case)


@contextmanager
def beside(command: list[str] | None):
    """Let another process run meanwhile, and give it time to start."""
    if command is None:
        yield
        return
    other = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(6)
    try:
        yield
    finally:
        other.kill()
        other.wait()
        shutil.rmtree(command[-1].removeprefix("hydra.run.dir="), ignore_errors=True)


def line(arguments: argparse.Namespace, epochs: int) -> list[str]:
    options = [f"data.n_stars={arguments.stars}", f"trainer.max_epochs={epochs}", f"threads={arguments.threads}"]
    return [sys.executable, str(TRAIN), *BARE, *options]


def epoch_seconds(run: Path) -> float:
    return json.loads((run / "metrics.json").read_text())["time/epoch"]


if __name__ == "__main__":
    main()
