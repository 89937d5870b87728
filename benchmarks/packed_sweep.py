# ruff: noqa: E402  torch reads the environment when it is imported
"""What a pack costs, against the same configurations one after another and in as many processes.

    python benchmarks/packed_sweep.py steps [--packs 1 2 4 8] [--sizes paper small] [--device cpu|cuda]
    python benchmarks/packed_sweep.py sweeps [--runs 8] [--packs 1 2 4 8] [--overrides model=small data.n_stars=2000]
        [--vary seed] [--alone 8] [--processes 2]

``steps``: a training step for each model of a stack, beside one of a model alone in the same process, and the fraction
of what large matrix products reach; on a GPU also without the CUDA graph that a stack's steps are replayed from.
``sweeps``: real sweeps over seeds, or over values of another key from 0.5 to 1.5, everything included but the making of
the survey and of its baselines: seconds of the clock and of all cores for each configuration, the largest memory, and
what a run does in its time, side by side with the others of its pack: the training of its epochs, regressors, probes.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from spectangle.threads import let_threads_sleep

let_threads_sleep()  # before torch is imported, as the commands do
import torch
from rich.table import Table
from training_speed import RandomStars, config_of, default, gemm_rate, operations, ready

from spectangle.console import console
from spectangle.model.autoencoder import DisentanglingAutoencoder, frozen
from spectangle.packs.member import Member
from spectangle.packs.stack import Stack

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"paper": [], "small": ["model=small"], "small survey": ["experiment=small_survey"]}
STEPS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    steps, sweeps = kinds.add_parser("steps"), kinds.add_parser("sweeps")
    for one in (steps, sweeps):
        one.add_argument("--packs", type=int, nargs="+", default=[1, 2, 4, 8])
    steps.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    steps.add_argument("--device", default="cpu")
    steps.add_argument("--rounds", type=int, default=3)
    sweeps.add_argument("--runs", type=int, default=8)
    sweeps.add_argument("--overrides", nargs="+", default=["model=small", "data.n_stars=2000"])
    sweeps.add_argument("--vary", default="seed", help="the key in which the runs differ")
    sweeps.add_argument("--alone", type=int, help="runs one after another, if not all")
    processes = len(os.sched_getaffinity(0))
    sweeps.add_argument(
        "--processes", type=int, default=processes, help="at the same time, without packs; 0: not measured"
    )
    options = parser.parse_args()
    console.print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    console.print(step_table(options) if options.kind == "steps" else sweep_table(options))


def step_table(options: argparse.Namespace) -> Table:
    """Milliseconds of a step for each model, alone and in stacks."""
    device = torch.device(options.device)
    table = Table(title=f"a training step of each model on {device}, {torch.get_num_threads()} threads, medians")
    on_gpu = device.type == "cuda"
    columns = ("networks", "batch", "stack of", "alone [ms]", "stack [ms]", "ratio", "of the GEMM limit")
    columns = (*columns, "memory [GB]", "without a graph [ms]") if on_gpu else columns
    for name in columns:
        table.add_column(name, justify="left" if name == "networks" else "right")
    gemm = gemm_rate(8192 if on_gpu else 2048, options.device)
    for size in options.sizes:
        overrides = SIZES[size]
        batch_size = config_of(overrides).data.batch_size
        data = RandomStars(batch_size * STEPS, batch_size)
        work = operations(default(overrides)) * batch_size
        for count in options.packs:
            models = [ready(default(overrides), data).to(device) for _ in range(count)]
            by_itself = plain_step(models[0], data, device)
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            together = stack_step(models, data, device)
            times = [(seconds(by_itself, device), seconds(together, device) / count) for _ in range(options.rounds)]
            alone, stacked = (statistics.median(column) for column in zip(*times, strict=True))
            cells = (f"{1e3 * alone:.2f}", f"{1e3 * stacked:.2f}", f"{stacked / alone:.2f}")
            cells = (*cells, f"{work / stacked / gemm:.2f}")
            if on_gpu:
                memory, launched = torch.cuda.max_memory_allocated() / 1e9, stack_step(models, data, device, False)
                each = statistics.median(seconds(launched, device) / count for _ in range(options.rounds))
                cells = (*cells, f"{memory:.1f}", f"{1e3 * each:.2f}")
            table.add_row(size, str(batch_size), str(count), *cells)
            console.print(size, count, *cells)
    return table


def batches(data: RandomStars, device: torch.device) -> list[torch.Tensor]:
    return [t.to(device) for t in (data.flux, data.noise, data.labels, data.classes, data.weights)]


def stack_step(
    models: list[DisentanglingAutoencoder], data: RandomStars, device: torch.device, captured: bool = True
) -> Callable[[], None]:
    """A function that takes some steps of a stack."""
    stars, n = batches(data, device), data.batch_size
    stack = Stack([Member.of(model, model.configure_optimizers(), 0, 1) for model in models])
    if not captured:
        stack.replay.captures = False
    generators = [torch.Generator(device).manual_seed(i) for i in range(len(models))]

    def run() -> None:
        for k in range(STEPS):
            rows = torch.arange(k * n, (k + 1) * n).expand(len(models), -1)
            batch = tuple(tensor[rows] for tensor in stars)
            stack.step(batch, generators, [0.5] * len(models))

    return run


def plain_step(model: DisentanglingAutoencoder, data: RandomStars, device: torch.device) -> Callable[[], None]:
    """A function that takes the same steps of one model, as its LightningModule does."""
    stars, n = batches(data, device), data.batch_size
    autoencoder, discriminators = model.configure_optimizers()

    def run() -> None:
        for k in range(STEPS):
            batch = tuple(tensor[k * n : (k + 1) * n] for tensor in stars)
            step = model.look(batch, model.draw(n))
            for _ in range(model.adversary.steps):
                loss = model.adversary.cross_entropy(step["seen"].detach(), step["questions"]).sum()
                discriminators.zero_grad()
                loss.backward()
                discriminators.step()
            with frozen(model.adversary):
                loss, _ = model.autoencoder_loss(step, 0.5)
            autoencoder.zero_grad()
            loss.backward()
            autoencoder.step()

    return run


def seconds(run: Callable[[], None], device: torch.device) -> float:
    """Seconds of one step."""
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def sweep_table(options: argparse.Namespace) -> Table:
    """Real sweeps over seeds: one after another with all threads, a process for each core, and packs."""
    table = Table(title=f"{options.runs} runs, {' '.join(options.overrides)}", title_justify="left")
    columns = ("how", "clock [s per run]", "cores [s per run]", "ratio", "memory of the largest process [GB]")
    for name in (*columns, "epochs [s]", "regressors [s]", "probes [s]"):
        table.add_column(name, justify="left" if name == "how" else "right")
    n = options.processes
    ways = {"one after another": (options.alone or options.runs, [])}
    ways |= {f"{n} processes": (options.runs, [f"sweep.workers={n}"])} if n else {}
    ways |= {f"packs of {count}": (options.runs, [f"sweep.pack={count}"]) for count in options.packs if count > 1}
    first = None
    with tempfile.TemporaryDirectory() as folder:
        warm = [*options.overrides, "trainer.max_epochs=1", values("seed", 1)]  # makes the survey and its baselines
        sweep(Path(folder) / "warm", warm)
        for name, (count, arguments) in ways.items():
            each = [*options.overrides, *arguments, values(options.vary, count)]
            clock, busy, memory = sweep(Path(folder) / name, each)
            first = first or clock / count
            cells = (f"{clock / count:.1f}", f"{busy / count:.1f}", f"{clock / count / first:.2f}")
            cells = (*cells, f"{memory:.1f}", *(f"{seconds:.1f}" for seconds in shares(Path(folder) / name)))
            table.add_row(name, *cells)
            console.print(name, count, f"{clock:.1f} s", *cells)
    return table


def values(key: str, count: int) -> str:
    """So many values of a key, as Hydra's sweepers take them."""
    numbers = range(count) if key.endswith("seed") else [f"{0.5 + i / count:.4f}" for i in range(count)]
    return f"{key}=choice({','.join(map(str, numbers))})"


def sweep(folder: Path, arguments: list[str]) -> tuple[float, float, float]:
    """Seconds of the clock and of all cores that a sweep takes, and the memory of its largest process in GB."""
    line = [sys.executable, "train.py", "-m", "hydra/sweeper=spectangle", "hydra/sweeper/sampler=grid"]
    line += ["callbacks.figures=null", *arguments, f"sweep.dir={folder}"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    clock, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return clock, busy, after.ru_maxrss / 1e6


def shares(folder: Path) -> tuple[float, float, float]:
    """Mean seconds of a sweep's runs: epochs, regressors, probes; what is left is start and end."""
    found = []
    for path in folder.glob("*/metrics.json"):
        run, epochs = json.loads(path.read_text()), len((path.parent / "metrics.csv").read_text().splitlines()) - 1
        regressors = sum(run.get(f"time/regressor/{part}", 0.0) for part in ("latent", "spectra"))
        found.append((run["time/epoch"] * epochs, regressors, run.get("time/probes", 0.0)))
    training, regressors, probes = map(statistics.mean, zip(*found, strict=True))
    return training, regressors, probes


if __name__ == "__main__":
    main()
