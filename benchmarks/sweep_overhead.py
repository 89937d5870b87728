"""Time per run outside training in a sweep: ask, compose, launch, tell, write; and four workers against one.

    python benchmarks/sweep_overhead.py [--points 12] [--stars 2000]

The survey is cached first, probes and regressor are off. Training time is what the run itself measures
(``time/total``).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--stars", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_sweep(Path(folder), arguments.points, arguments.stars)
        run(Path(folder), "warm", 1, "seed=choice(1)")  # caches the survey and its baselines
        print(f"{'workers':>8} {'runs':>5} {'training':>9} {'outside':>8} {'wall per run':>13}")
        for workers in (1, 4):
            start = time.monotonic()
            sweep = run(Path(folder), f"w{workers}", workers, f"seed=range({arguments.points})")
            report(sweep, workers, time.monotonic() - start)


def write_sweep(folder: Path, points: int, stars: int) -> None:
    text = f"""
defaults:
  [config, override model: tiny, override hydra/sweeper: spectangle, override hydra/sweeper/sampler: grid, _self_]
data: {{n_stars: {stars}, seed: 0}}
callbacks: {{probes: null, regressor: null}}
trainer: {{max_epochs: 3}}
hydra: {{mode: MULTIRUN}}
"""
    (folder / "overhead.yaml").write_text(text)


def run(folder: Path, name: str, workers: int, *arguments: str) -> Path:
    command = [
        sys.executable,
        "train.py",
        "-cd",
        str(folder),
        "-cn",
        "overhead",
        f"sweep.dir={folder}/{name}",
        f"sweep.workers={workers}",
    ]
    environment = os.environ if workers == 1 else os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=environment)
    return folder / name


def report(sweep: Path, workers: int, wall: float) -> None:
    """Time between two runs of a worker is what the worker, the study and the start of the process cost."""
    found = [(json.loads(path.read_text()), path.parent) for path in sweep.glob("*/trial.json")]
    training = [json.loads((folder / "metrics.json").read_text())["time/total"] for _, folder in found]
    first = min(record["started"] for record, _ in found)
    last = max(record["ended"] for record, _ in found)
    outside = (last - first) * workers / len(found) - sum(training) / len(training)
    mean, each = sum(training) / len(training), (last - first) / len(found)
    print(f"{workers:8} {len(found):5} {mean:8.2f}s {outside:7.2f}s {each:12.2f}s   (with start-up {wall:.1f} s)")


if __name__ == "__main__":
    main()
