"""How fast does predict.py stream? Against reading the file once plus the encoder's matrix products, on the same machine.

    python benchmarks/prediction.py run=RUN [n=1000000] [folder=/tmp] [out=parquet]

Each part is timed in a process of its own, with the same number of threads; peak memory is that of predict.py's process.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import torch

from spectangle.experiment import available_cores
from spectangle.trained import load

CHUNK = 4096


def make_survey(path: Path, n: int, wavelength: np.ndarray) -> None:
    """Write n noisy spectra with errors, the same 8192 over and over: only their number matters."""
    from spectangle.survey import SurveyWriter

    random = np.random.default_rng(0)
    flux = (1 - 0.3 * np.exp(-((wavelength - 854.444) ** 2) / 0.1) + 0.02 * random.normal(size=(8192, len(wavelength)))).astype(np.float32)
    error = np.full_like(flux, 0.02)
    with SurveyWriter(path, wavelength, {"teff": "K"}, origin="benchmark", release="1") as writer:
        for start in range(0, n, len(flux)):
            count = min(len(flux), n - start)
            writer.append(np.arange(start, start + count) + 1, flux[:count], {"teff": np.full(count, np.nan)}, flux_error=error[:count])


def time_reading(path: str) -> dict:
    """Read every chunk of flux and flux_error once."""
    start = time.perf_counter()
    with h5py.File(path) as file:
        for first in range(0, len(file["flux"]), CHUNK):
            file["flux"][first : first + CHUNK], file["flux_error"][first : first + CHUNK]
    return {"seconds": time.perf_counter() - start}


@torch.inference_mode()
def time_products(run: str, n: int) -> dict:
    """The encoder's matrix products alone, for n spectra."""
    layers = [layer for layer in load(run, calibrated=False).network.encoder.layers if isinstance(layer, torch.nn.Linear)]
    inputs = [torch.randn(CHUNK, layer.in_features) for layer in layers]
    weights = [layer.weight.T.contiguous() for layer in layers]
    products = [torch.empty(CHUNK, layer.out_features) for layer in layers]
    repeats = max(1, min(n, 200_000) // CHUNK)
    start = time.perf_counter()
    for _ in range(repeats):
        for x, weight, product in zip(inputs, weights, products, strict=True):
            torch.mm(x, weight, out=product)
    return {"seconds": (time.perf_counter() - start) * n / (repeats * CHUNK)}


def time_prediction(run: str, path: str, out: str) -> dict:
    """All of predict.py: calibration from its file, reading, flags, table."""
    from spectangle.prediction import predict as prediction

    load(run)  # once per run: the calibration
    parts, write = {}, prediction.write_table

    def timed(table, where) -> None:
        start = time.perf_counter()
        write(table, where)
        parts["writing"] = time.perf_counter() - start

    prediction.write_table = timed
    start = time.perf_counter()
    prediction.predict(run, path, out, overwrite=True)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6} | parts


def main() -> None:
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if "part" in options:
        torch.set_num_threads(available_cores())
        parts = {
            "read": lambda: time_reading(options["path"]),
            "products": lambda: time_products(options["run"], int(options["n"])),
            "predict": lambda: time_prediction(options["run"], options["path"], options["out"]),
        }
        print(json.dumps(parts[options["part"]]()))
        return
    n, folder = int(options.get("n", 1_000_000)), Path(options.get("folder", "/tmp"))
    path = folder / f"benchmark-{n}.h5"
    if not path.is_file():
        make_survey(path, n, load(options["run"], calibrated=False).wavelength)
    out = folder / f"benchmark.{options.get('out', 'parquet')}"
    results = {}
    for part in ("read", "products", "predict"):
        words = [sys.executable, __file__, f"part={part}", f"run={options['run']}", f"path={path}", f"n={n}", f"out={out}"]
        results[part] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    report(results, n)


def report(results: dict, n: int) -> None:
    limit = results["read"]["seconds"] + results["products"]["seconds"]
    whole = results["predict"]["seconds"]
    print(f"{n:,} spectra, {available_cores()} cores")
    print(f"reading the file once     {results['read']['seconds']:6.1f} s")
    print(f"the encoder's products    {results['products']['seconds']:6.1f} s")
    print(f"limit                     {limit:6.1f} s")
    print(f"predict.py                {whole:6.1f} s, of which writing {results['predict']['writing']:.1f} s")
    print(f"                          {n / whole:,.0f} spectra/s, {limit / whole:.2f} of the limit")
    print(f"peak memory               {results['predict']['memory_gb']:6.2f} GB")


if __name__ == "__main__":
    main()
