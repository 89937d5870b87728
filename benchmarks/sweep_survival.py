"""Torture a sweep: 60 short runs on 4 workers, with processes killed at random and runs that fail, then count what was lost.

    python benchmarks/sweep_survival.py                     journal, SQLite, and PostgreSQL where it is installed
    python benchmarks/sweep_survival.py --storages journal --seed 3

While the sweep runs, a random worker, run or the whole command is killed with SIGKILL every few seconds (and the command
started again). Of the 60 configurations, some raise, return NaN, exit hard or are killed in their first attempt, two
always fail. At the end each configuration must be there once, in the right state, with the numbers of an uninterrupted run.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from postgres import Postgres, why_not
from sweep_tools import command, environment, records, trials, write_sweep

FAILURES = {"raise": 5, "not_a_number": 3, "exit": 4, "kill": 4}  # configurations that misbehave in their first attempt
HOPELESS = 2
EPOCHS = 6
RETRIES = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storages", nargs="+", default=["journal", "sqlite", *(["postgresql"] if not why_not() else [])])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epoch-s", type=float, default=0.15)
    arguments = parser.parse_args()
    names = ("kills", "starts", "attempts", "lost", "duplicated", "wrong state", "wrong result", "seconds")
    print(" ".join([f"{'storage':12}", *(f"{name:>12}" for name in names)]), flush=True)
    bad = 0
    for storage in arguments.storages:
        row = torture(storage, arguments.seed, arguments.epoch_s)
        bad += sum(row[name] for name in ("lost", "duplicated", "wrong_state", "wrong_result"))
        cells = [row[name.replace(" ", "_")] for name in names[:-1]] + [round(row["seconds"], 1)]
        print(" ".join([f"{storage:12}", *(f"{cell:12}" for cell in cells)]), flush=True)
    sys.exit(bool(bad))


def torture(storage: str, seed: int, epoch_s: float) -> dict:
    """Run one tortured sweep and judge it."""
    folder = Path(tempfile.mkdtemp(prefix="survival-"))
    postgres = Postgres(folder / "postgres").start() if storage == "postgresql" else None
    url = {"journal": None, "sqlite": f"sqlite:///{folder}/study.db"}.get(storage) if postgres is None else postgres.url
    try:
        begin = time.monotonic()
        sweep = write_torture(folder, seed, url)
        kills, starts = run_and_kill(folder, sweep, random.Random(seed), epoch_s)
        return judge(sweep, url, epoch_s) | {"kills": kills, "starts": starts, "seconds": time.monotonic() - begin}
    finally:
        if postgres is not None:
            postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def write_torture(folder: Path, seed: int, url: str | None) -> Path:
    """60 configurations: x is their number; ``fail`` is drawn for some."""
    numbers = random.Random(seed).sample(range(60), sum(FAILURES.values()) + HOPELESS)
    kinds = [(kind, 1) for kind, count in FAILURES.items() for _ in range(count)] + [("raise", 1000)] * HOPELESS
    fails = dict(zip(numbers, kinds, strict=True))
    code = (
        "import optuna\n\nFAILS = " + repr(fails) + "\n\n\ndef define(cfg, trial):\n    number = round(trial.params['x'] * 100)\n"
        "    fail = trial.suggest_categorical('fail', ['none', 'raise', 'not_a_number', 'exit', 'kill'])\n"
        "    tries = trial.suggest_categorical('fail_tries', [1, 1000])\n"
        "    if (fail, tries) != FAILS.get(number, ('none', 1)):\n        raise optuna.TrialPruned  # leave this point out\n"
    )
    (folder / "torture_space.py").write_text(code)
    options = {"custom_search_space": "torture_space.define", "retries": RETRIES, "max_failure_rate": 1.0, "workers": 4, "storage": url}
    return write_sweep(folder, params={"x": "range(0, 0.6, 0.01)"}, **options)


def run_and_kill(folder: Path, sweep: Path, dice: random.Random, epoch_s: float) -> tuple[int, int]:
    """Kill at random until the sweep ends by itself, and start it once more in peace."""
    kills, starts, process = 0, 0, None
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if process is None or process.poll() is not None:
            if process is not None and finished(sweep):
                break
            process, starts = begin(folder, epoch_s), starts + 1
        time.sleep(dice.uniform(0.8, 2.4))
        if victim := choose(process.pid, dice):
            try:
                os.kill(victim, signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                pass
    process = begin(folder, epoch_s)
    process.wait(timeout=120)
    return kills, starts + 1


def begin(folder: Path, epoch_s: float) -> subprocess.Popen:
    return subprocess.Popen(
        command(folder, f"epochs={EPOCHS}", f"epoch_s={epoch_s}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=environment() | {"PYTHONPATH": str(folder)}, cwd=folder,
    )  # fmt: skip


def finished(sweep: Path) -> bool:
    """Everything but the hopeless has succeeded."""
    found = records(sweep).values()
    return sum(record.get("state") == "complete" for record in found) >= 60 - HOPELESS


def choose(root: int, dice: random.Random) -> int | None:
    """A worker (1 in 3), a run (most often), or the command itself (1 in 12)."""
    workers = children(root)
    runs = [run for worker in workers for run in children(worker)]
    draw = dice.random()
    if draw < 1 / 12:
        return root
    group = workers if draw < 1 / 12 + 1 / 3 else runs
    return dice.choice(group) if group else None


def children(pid: int) -> list[int]:
    try:
        return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    except OSError:
        return []


def judge(sweep: Path, url: str | None, epoch_s: float) -> dict:
    """Count what is lost, doubled, in a wrong state or has other numbers than an uninterrupted run."""
    found, attempts = list(records(sweep).values()), trials(sweep, url)
    numbers = Counter(round(record["params"]["x"] * 100) for record in found)
    complete = Counter(trial.user_attrs["configuration"] for trial in attempts if trial.state.name == "COMPLETE")
    wrong_state = wrong_result = 0
    for record in found:
        hopeless = record["params"]["fail_tries"] == 1000
        wrong_state += record["state"] != ("failed" if hopeless else "complete")
        lines = (sweep / record["name"] / "epochs.log").read_text().split()
        if not hopeless:
            whole = [*dict.fromkeys(lines)] == [str(epoch + 1) for epoch in range(EPOCHS)]
            wrong_result += not whole or abs(record["values"][0] - expected(record["params"]["x"])) > 1e-12
    wrong_state += sum(trial.state.name in ("RUNNING", "WAITING") for trial in attempts)
    return {
        "lost": 60 - len(numbers),
        "duplicated": sum(count > 1 for count in numbers.values()) + sum(count > 1 for count in complete.values()),
        "wrong_state": wrong_state,
        "wrong_result": wrong_result,
        "attempts": len(attempts),
    }


def expected(x: float) -> float:
    """The score of an uninterrupted run, in the order of additions of the run itself."""
    score = 0.0
    for epoch in range(EPOCHS):
        score += (x - 0.3) ** 2 + (1 - 2) ** 2 + 0.01 * 0 + 0.001 * epoch
    return score


if __name__ == "__main__":
    main()
