"""How fast does spectangle predict stream? Against reading the file once plus the encoder's matrix products, on the
same machine.

    python benchmarks/prediction.py run=RUN [n=1000000] [rounds=3] [folder=/tmp] [out=parquet]

The parts take turns, round by round, each in a process of its own, so that they share what else the machine has to do.
Each is given in seconds on the clock and in processor seconds (user + system); the second depend less on other jobs.
The products are split over
threads that do not wait for each other, once as torch.mm multiplies and once as the packed layers of spectangle predict
do, bias and ReLU included. Peak memory is that of spectangle predict's process.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch

from spectangle.inference.load import load
from spectangle.inference.trained import TrainedModel
from spectangle.survey.file import Survey
from spectangle.survey.writer import SurveyWriter
from spectangle.threads import available_cores, use_threads

CHUNK = 4096
NAMES = {
    "read": "reading the file once",
    "torch.mm": "the encoder's products, torch.mm",
    "packed": "the encoder's layers, packed",
    "predict": "spectangle predict",
}


def make_survey(path: Path, n: int, wavelength: np.ndarray) -> None:
    """Write n noisy spectra with errors, the same 8192 over and over: only their number matters."""
    random = np.random.default_rng(0)
    flux = (
        1 - 0.3 * np.exp(-((wavelength - 854.444) ** 2) / 0.1) + 0.02 * random.normal(size=(8192, len(wavelength)))
    ).astype(np.float32)
    error = np.full_like(flux, 0.02)
    with SurveyWriter(path, wavelength, {"teff": "K"}, origin="benchmark", release="1") as writer:
        for start in range(0, n, len(flux)):
            count = min(len(flux), n - start)
            writer.append(
                np.arange(start, start + count) + 1,
                flux[:count],
                {"teff": np.full(count, np.nan)},
                flux_error=error[:count],
            )


def read_file(path: str) -> None:
    """Read every chunk of flux and flux_error once."""
    with Survey(path) as survey:
        for start, stop in survey.chunks(CHUNK):
            survey.flux(start, stop)
            survey.flux_error(start, stop)


def torch_products(model: TrainedModel) -> Callable[[], None]:
    """The encoder's matrix products alone, for one chunk."""
    weights = [layer.weight.T.contiguous() for layer in model.network.encoder.layers if hasattr(layer, "weight")]
    inputs = [torch.randn(CHUNK, len(weight)) for weight in weights]
    products = [torch.empty(CHUNK, weight.shape[1]) for weight in weights]

    def multiply() -> None:
        for x, weight, product in zip(inputs, weights, products, strict=True):
            torch.mm(x, weight, out=product)

    return multiply


def packed_products(model: TrainedModel) -> Callable[[], None]:
    """The encoder as spectangle predict runs it, for one chunk in batches."""
    inputs = torch.randn(CHUNK // 4, len(model.wavelength))

    def multiply() -> None:
        for _ in range(4):
            model.fast.encoder(inputs if model.fast.projection is None else model.fast.projection(inputs))

    return multiply


def time_products(run: str, n: int, kind: Callable[[TrainedModel], Callable[[], None]]) -> dict:
    """Multiply for n spectra (for 200,000 at most, and scale), one chunk per thread at a time."""
    model, cores = load(run, calibrated=False), available_cores()
    torch.set_num_threads(1)
    repeats = max(1, min(n, 200_000) // CHUNK // cores)

    def work() -> None:
        with torch.inference_mode():
            multiply = kind(model)
            for _ in range(repeats):
                multiply()

    def together() -> None:
        with ThreadPoolExecutor(cores) as pool:
            for future in [pool.submit(work) for _ in range(cores)]:
                future.result()

    return {key: seconds * n / (repeats * cores * CHUNK) for key, seconds in timed(together).items()}


def time_prediction(run: str, path: str, out: str) -> dict:
    """All of spectangle predict: calibration from its file, reading, flags, table."""
    from spectangle.inference.predict import predict

    load(run)  # once per run: the calibration
    use_threads()
    seconds = timed(lambda: predict(run, path, out, overwrite=True))
    return seconds | {"memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Seconds on the clock and on the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}


def run_part(part: str, options: dict[str, str]) -> dict:
    run, path, n = options["run"], options["path"], int(options["n"])
    parts = {
        "read": lambda: timed(lambda: read_file(path)),
        "torch.mm": lambda: time_products(run, n, torch_products),
        "packed": lambda: time_products(run, n, packed_products),
        "predict": lambda: time_prediction(run, path, options["out"]),
    }
    return parts[part]()


def main() -> None:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if "part" in options:
        print(json.dumps(run_part(options["part"], options)))
        return
    n, folder = int(options.get("n", 1_000_000)), Path(options.get("folder", "/tmp"))
    path = folder / f"benchmark-{n}.h5"
    if not path.is_file():
        make_survey(path, n, load(options["run"], calibrated=False).wavelength)
    out = folder / f"benchmark.{options.get('out', 'parquet')}"
    rounds = []
    for _ in range(int(options.get("rounds", 3))):
        words = [f"run={options['run']}", f"path={path}", f"n={n}", f"out={out}"]
        rounds.append(
            {part: in_process([f"part={part}", *words]) for part in ("read", "torch.mm", "packed", "predict")}
        )
    report(rounds, n)


def in_process(words: list[str]) -> dict:
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(rounds: list[dict], n: int) -> None:
    print(f"{f'{n:,} spectra, {available_cores()} cores, median of {len(rounds)} rounds':45s}      clock   processor")
    for part, name in NAMES.items():
        print(
            f"{name:45s} {median(r[part]['clock'] for r in rounds):9.1f} s "
            f"{median(r[part]['processor'] for r in rounds):9.1f} s"
        )
    for part in ("torch.mm", "packed"):
        shares = {
            kind: [(r["read"][kind] + r[part][kind]) / r["predict"][kind] for r in rounds]
            for kind in ("clock", "processor")
        }
        name = f"of the limit with {part} ({min(shares['clock']):.2f} to {max(shares['clock']):.2f})"
        print(f"{name:45s} {median(shares['clock']):11.2f} {median(shares['processor']):11.2f}")
    print(f"peak memory {max(r['predict']['memory_gb'] for r in rounds):.2f} GB")


if __name__ == "__main__":
    main()
