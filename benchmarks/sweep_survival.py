"""Torture sweeps: processes killed, terminated and frozen at random, disks that fill up, then count what was lost.

    python benchmarks/sweep_survival.py                     every case that this machine can run
    python benchmarks/sweep_survival.py --cases journal train.py --seed 3

Every few seconds a random worker, run or the whole command gets SIGKILL, SIGTERM or is stopped until it counts as dead
and then wakes up again (a node that hangs); the command is started again when it has ended. Cases:

journal, sqlite, postgresql   60 configurations of a stand-in on 4 workers, by storage. Some raise, return NaN, exit
                              hard or are killed in their first attempt, two always fail.
two folders                   two such sweeps of one name at once, in one SQLite database.
full disk                     the sweep lies on a disk of its own (tmpfs, needs root) that is full for some seconds
                              again and again.
train.py                      the real thing: 8 trainings with probes, whose objective is measured after the last
                              epoch.
packs                         8 trainings in packs of 4 on 2 workers, two of which diverge whenever they are tried.

At the end each configuration must be there once, in the right state, with the numbers of an uninterrupted run. In packs
each must have every epoch once and nearly these numbers: training is chaotic, and who shares a pack changes the order
of sums.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from conftest import write_toy_survey
from postgres import Postgres, why_not
from sweep_tools import TRAIN, command, environment, records, trials, write_sweep

from spectangle.runs.folder import Run

FAILURES = {"raise": 5, "not_a_number": 3, "exit": 4, "kill": 4}  # configurations that misbehave in their first attempt
HOPELESS = 2
EPOCHS = 6
TRAINED_EPOCHS = 120
RETRIES = 30
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
STALL_S = 6  # longer than a worker may be silent (a heartbeat of 0.5 s)
LIMIT_S = 600
COLUMNS = ("signals", "starts", "attempts", "lost", "duplicated", "wrong state", "wrong result", "seconds")


class StandIn:
    """A sweep of the stand-in: 60 configurations, x is their number; ``fail`` is drawn for some."""

    pause_s = (0.8, 2.4)

    def __init__(self, folder: Path, seed: int, url: str | None):
        folder.mkdir(parents=True, exist_ok=True)
        numbers = random.Random(seed).sample(range(60), sum(FAILURES.values()) + HOPELESS)
        kinds = [(kind, 1) for kind, count in FAILURES.items() for _ in range(count)] + [("raise", 1000)] * HOPELESS
        fails = dict(zip(numbers, kinds, strict=True))
        code = (
            "import optuna\n\nFAILS = "
            + repr(fails)
            + "\n\n\ndef define(cfg, trial):\n    number = round(trial.params['x'] * 100)\n"
            "    fail = trial.suggest_categorical('fail', ['none', 'raise', 'not_a_number', 'exit', 'kill'])\n"
            "    tries = trial.suggest_categorical('fail_tries', [1, 1000])\n"
            "    if (fail, tries) != FAILS.get(number, ('none', 1)):\n        raise optuna.TrialPruned  # leave "
            "this point out\n"
        )
        (folder / "torture_space.py").write_text(code)
        options = {
            "custom_search_space": "torture_space.define",
            "retries": RETRIES,
            "max_failure_rate": 1.0,
            "workers": 4,
            "storage": url,
        }
        self.folder, self.url = folder, url
        self.sweep = write_sweep(folder, params={"x": "range(0, 0.6, 0.01)"}, **options)
        self.command = command(folder, f"epochs={EPOCHS}", "epoch_s=0.15")

    def begin(self) -> subprocess.Popen:
        return subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment() | {"PYTHONPATH": str(self.folder)},
            cwd=self.folder,
        )

    @property
    def finished(self) -> bool:
        """Everything but the hopeless has succeeded."""
        return sum(record.get("state") == "complete" for record in records(self.sweep).values()) >= 60 - HOPELESS

    def judge(self) -> Counter:
        """Count what is lost, doubled, in a wrong state or has other numbers than an uninterrupted run."""
        found, attempts = list(records(self.sweep).values()), trials(self.sweep, self.url)
        numbers = Counter(round(record["params"]["x"] * 100) for record in found)
        count = judged(numbers, 60, attempts)
        for record in found:
            hopeless = record["params"]["fail_tries"] == 1000
            count["wrong state"] += record["state"] != ("failed" if hopeless else "complete")
            if not hopeless:
                lines = (self.sweep / record["name"] / "epochs.log").read_text().split()
                whole = [*dict.fromkeys(lines)] == [str(epoch + 1) for epoch in range(EPOCHS)]
                count["wrong result"] += not whole or abs(record["values"][0] - expected(record["params"]["x"])) > 1e-12
        return count


class Training:
    """A sweep of ``train.py``: 8 configurations, held against the same sweep that nobody disturbed."""

    pause_s = (1.0, 4.0)
    points, hopeless = 8, 0
    grid = ("lambdas=first_pair,second_pair", "model.input_noise=0,0.5,1,2", "sweep.workers=2")

    def __init__(self, folder: Path, seed: int):
        survey = write_toy_survey(folder / "toy.h5")
        quick = [
            "model=tiny",
            "probes=quick",
            "regressor=torch",
            "callbacks.figures=null",
            f"trainer.max_epochs={TRAINED_EPOCHS}",
            "threads=1",
        ]
        late = ["objective=val/largest_excess", f"callbacks.probes.every_n_epochs={TRAINED_EPOCHS}"]
        late += ["callbacks.probes.bootstrap=20"]
        sweeper = [
            "-m",
            "hydra/sweeper=spectangle",
            "hydra/sweeper/sampler=grid",
            "hydra.sweeper.heartbeat_s=0.5",
            f"hydra.sweeper.retries={RETRIES}",
        ]
        self.command = [
            sys.executable,
            str(TRAIN),
            "data=survey",
            f"data.path={survey}",
            *quick,
            *late,
            *sweeper,
            *self.grid,
        ]
        self.folder, self.sweep = folder, folder / "tortured"
        subprocess.run(
            [*self.command, f"hydra.sweep.dir={folder}/calm"],
            check=self.hopeless == 0,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def begin(self) -> subprocess.Popen:
        line = [*self.command, f"hydra.sweep.dir={self.sweep}"]
        return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())

    @property
    def finished(self) -> bool:
        done = sum(record.get("state") == "complete" for record in records(self.sweep).values())
        return done >= self.points - self.hopeless

    def judge(self) -> Counter:
        calm, found = records(self.folder / "calm"), records(self.sweep)
        count = judged(Counter(found.keys()), self.points, trials(self.sweep))
        count["wrong state"] += sum(record["state"] != calm[point]["state"] for point, record in found.items())
        for point, record in found.items():
            if record["state"] != "complete":
                continue
            numbers = [json.loads((root / one["name"] / "metrics.json").read_text()) for root, one in
                       ((self.folder / "calm", calm[point]), (self.sweep, record))]  # fmt: skip
            measured = [
                {key: value for key, value in one.items() if not key.startswith(("time/", "memory/"))}
                for one in numbers
            ]
            count["wrong result"] += not self.same(record["name"], *measured)
        return count

    def same(self, name: str, calm: dict[str, float], found: dict[str, float]) -> bool:
        return calm == found


class Packs(Training):
    """A sweep of ``train.py`` in packs, in which some diverge."""

    grid = (
        "lambdas=first_pair",
        "optimizer.lr=1e-3,2e-3,3e-3,1e30",
        "model.input_noise=0.5,1",
        "sweep.workers=2",
        "sweep.pack=4",
        "hydra.sweeper.retries=15",
    )
    hopeless = 2

    def same(self, name: str, calm: dict[str, float], found: dict[str, float]) -> bool:
        epochs = [row["epoch"] for row in Run(self.sweep / name).history]
        error = abs(found["val/reconstruction"] / calm["val/reconstruction"] - 1)
        return epochs == list(range(TRAINED_EPOCHS)) and calm.keys() == found.keys() and error < 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = [
        "journal",
        "sqlite",
        *(["postgresql"] if not why_not() else []),
        "two folders",
        *(["full disk"] if os.geteuid() == 0 else []),
        "train.py",
        "packs",
    ]
    parser.add_argument("--cases", nargs="+", default=cases, choices=cases)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(" ".join([f"{'case':12}", *(f"{name:>12}" for name in COLUMNS)]), flush=True)
    bad = 0
    for case in arguments.cases:
        row = torture(case, arguments.seed)
        bad += sum(row[name] for name in ("lost", "duplicated", "wrong state", "wrong result"))
        print(" ".join([f"{case:12}", *(f"{row[name]:12}" for name in COLUMNS)]), flush=True)
    sys.exit(bool(bad))


def torture(case: str, seed: int) -> Counter:
    """Run one tortured case and judge it."""
    folder, dice = Path(tempfile.mkdtemp(prefix="survival-")), random.Random(seed)
    try:
        with storage(case, folder) as url, small_disk(folder / "disk", case == "full disk") as disk:
            parts = ["one", "two"] if case == "two folders" else ["one"]
            real = {"train.py": Training, "packs": Packs}.get(case)
            sweeps = [real(folder, seed)] if real else [StandIn(disk / part, seed, url) for part in parts]
            start = time.monotonic()
            count = run_and_disturb(sweeps, dice, disk if case == "full disk" else None)
            count["seconds"] = round(time.monotonic() - start)
            return sum((sweep.judge() for sweep in sweeps), count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def storage(case: str, folder: Path) -> Iterator[str | None]:
    """URL of the study's storage; None is the journal in the sweep's folder."""
    server = Postgres(folder / "postgres").start() if case == "postgresql" else None
    try:
        yield server.url if server else f"sqlite:///{folder}/study.db" if case in ("sqlite", "two folders") else None
    finally:
        if server is not None:
            server.stop()


@contextmanager
def small_disk(folder: Path, wanted: bool) -> Iterator[Path]:
    """A disk of 16 MB where it is wanted, else a folder."""
    folder.mkdir()
    if wanted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        if wanted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def run_and_disturb(sweeps: list, dice: random.Random, disk: Path | None) -> Counter:
    """Disturb at random until all sweeps have ended by themselves, and start each once more in peace."""
    count, processes = Counter(), dict.fromkeys(range(len(sweeps)))
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        for i, sweep in enumerate(sweeps):
            if (processes[i] is None or processes[i].poll() is not None) and not sweep.finished:
                processes[i], count["starts"] = sweep.begin(), count["starts"] + 1
        alive = [process for process in processes.values() if process is not None and process.poll() is None]
        if not alive:
            break
        time.sleep(dice.uniform(*sweeps[0].pause_s))
        if disk is not None and dice.random() < 0.3:
            fill_for_a_while(disk)
            count["signals"] += 1
        elif victim := choose(dice.choice(alive).pid, dice):
            count["signals"] += disturb(victim, dice.choice(SIGNALS))
    for sweep in sweeps:
        sweep.begin().wait(timeout=300)
        count["starts"] += 1
    return count


def disturb(victim: int, how: signal.Signals) -> bool:
    """Send a signal; one that is stopped wakes up when others have taken over."""
    try:
        os.kill(victim, how)
        if how == signal.SIGSTOP:
            time.sleep(STALL_S)
            os.kill(victim, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def fill_for_a_while(disk: Path) -> None:
    """Leave no byte on the disk for some seconds."""
    filler = disk / "filler"
    try:
        with open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
    except OSError:
        time.sleep(1.5)
    finally:
        filler.unlink(missing_ok=True)


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


def judged(names: Counter, wanted: int, attempts: list) -> Counter:
    """What every sweep is judged by: each configuration once, complete at most once, nothing left running."""
    complete = Counter(trial.user_attrs["configuration"] for trial in attempts if trial.state.name == "COMPLETE")
    twice = sum(count > 1 for count in names.values()) + sum(count > 1 for count in complete.values())
    left = sum(trial.state.name in ("RUNNING", "WAITING") for trial in attempts)
    return Counter(
        {
            "lost": wanted - len(names),
            "duplicated": twice,
            "wrong state": left,
            "wrong result": 0,
            "attempts": len(attempts),
        }
    )


def expected(x: float) -> float:
    """The score of an uninterrupted run, in the order of additions of the run itself."""
    score = 0.0
    for epoch in range(EPOCHS):
        score += (x - 0.3) ** 2 + (1 - 2) ** 2 + 0.01 * 0 + 0.001 * epoch
    return score


if __name__ == "__main__":
    main()
