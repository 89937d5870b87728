"""Throughput and memory of spectangle prepare against the number of bulk-format spectra, beside the fastest library
readers.

    python benchmarks/archive_throughput.py 1000 10000 100000        (add --workers 2; --keep FOLDER reuses the files)

For each size: decompression alone (Python's gzip, Arrow's), decompression and parsing of the same files by libraries
(pyarrow's CSV columns with the lists read by numpy, json, or Arrow), and ours: files to survey file, with labels
joined, pixels binned and content hashed. Memory is the peak of the process and of its children.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
from astropy.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from archive_files import BULK_COLUMNS, ECSV_HEADER, Stars, bulk_rows

PER_FILE = 300  # stars in a file of Gaia DR3: 999,645 in 3,386 files
ROOT = Path(__file__).resolve().parents[1]


def make_files(folder: Path, n: int) -> list[Path]:
    """Bulk files of n stars in all: 300 different spectra under different ids.

    Each row is a gzip member of its own, compressed once, so that a million rows are written in minutes; that is valid
    gzip, of the size that one stream has.
    """
    rng = np.random.default_rng(0)
    base = Stars(PER_FILE, seed=1)
    tails = [gzip.compress(row[row.index(",") :].encode() + b"\n", 6) for row in bulk_rows(base)]
    header = gzip.compress((ECSV_HEADER + ",".join(BULK_COLUMNS) + "\n").encode())
    healpix = np.sort(rng.permutation(np.unique(rng.integers(0, 12 * 4**12, n + n // 50 + 10)))[:n])
    ids = (healpix << 35) + (rng.integers(1, 1 << 25, n) << 7)
    names = []
    for start in range(0, n, PER_FILE):
        path = folder / f"RvsMeanSpectrum_{start:07d}.csv.gz"
        names.append(path)
        if not path.exists():
            pairs = zip(ids[start : start + PER_FILE], tails, strict=False)
            path.write_bytes(
                header + b"".join(gzip.compress(str(source_id).encode(), 1) + tail for source_id, tail in pairs)
            )
    index = np.arange(n) % PER_FILE
    table = Table({"source_id": ids, **{k: v[index] for k, v in base.labels.items()}, "phot_g_mean_mag": base.g[index]})
    table.write(folder.parent / "labels.fits", overwrite=True)
    return names


def decompress_gzip(path: Path) -> None:
    with gzip.open(path) as file:
        while file.read(1 << 20):
            pass


def decompress_arrow(path: Path) -> None:
    with pa.input_stream(str(path), compression="gzip") as stream:
        while stream.read(1 << 20):
            pass


def columns(path: Path):
    """Batches of the columns that are needed, lists as text: pyarrow's streaming CSV reader."""
    types = {"source_id": pa.int64(), "flux": pa.binary(), "flux_error": pa.binary()}
    yield from pyarrow.csv.open_csv(
        pa.input_stream(str(path), compression="gzip"),
        read_options=pyarrow.csv.ReadOptions(skip_rows=ECSV_HEADER.count("\n"), block_size=8 << 20, use_threads=False),
        convert_options=pyarrow.csv.ConvertOptions(include_columns=list(types), column_types=types),
    )


def parse_with(read_list):
    def parse(path: Path) -> None:
        for batch in columns(path):
            for name in ("flux", "flux_error"):
                read_list(batch.column(name))

    return parse


def numpy_lists(column) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        [np.fromstring(text[1:-1], sep=",", dtype=np.float32) for text in column.to_pylist()]


def json_lists(column) -> None:
    [json.loads(text) for text in column.to_pylist()]


def arrow_lists(column) -> None:
    text = pa.compute.utf8_slice_codeunits(column.cast(pa.string()), 1, -1)
    pa.compute.split_pattern(text, ",").flatten().cast(pa.float32())


def ours_lists(column) -> None:
    from spectangle.archives.gaia.flux_lists import parse_lists

    parse_lists(column)


def timed(function, paths: list[Path]) -> float:
    """CPU seconds, which other users of the machine do not change."""
    start = time.process_time()
    for path in paths:
        function(path)
    return time.process_time() - start


def ours(folder: Path, workers: int) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and MiB (of the largest process) of one spectangle prepare, the interpreter's start
    included.
    """
    survey = folder.parent / "survey.h5"
    command = [
        sys.executable,
        "-m",
        "spectangle",
        "prepare",
        f"spectra={folder}",
        f"labels.table={folder.parent / 'labels.fits'}",
    ]
    command += [f"survey={survey}", f"workers={workers}", "overwrite=true", "report=false"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"spectangle prepare failed with status {status}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("sizes", nargs="+", type=int)
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument("--keep", type=Path)
    options = arguments.parse_args()
    for n in options.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.keep or Path(temporary)) / f"n{n}" / "rvs"
            folder.mkdir(parents=True, exist_ok=True)
            paths = make_files(folder, n)
            sample = paths[: max(1, min(len(paths), 2000 // PER_FILE))]
            scale = 1e6 / min(n, PER_FILE * len(sample))
            gigabytes = sum(path.stat().st_size for path in paths) / 1e9
            print(f"\n{n} spectra in {len(paths)} files, {gigabytes:.3f} GB compressed; CPU microseconds a spectrum:")
            for name, function in (
                ("decompress, gzip module", decompress_gzip),
                ("decompress, Arrow", decompress_arrow),
                ("decompress and parse: Arrow columns, numpy.fromstring lists", parse_with(numpy_lists)),
                ("decompress and parse: Arrow columns, json lists", parse_with(json_lists)),
                ("decompress and parse: Arrow columns, Arrow split and cast", parse_with(arrow_lists)),
                ("decompress and parse: Arrow columns, our lists", parse_with(ours_lists)),
            ):
                print(f"  {name:62s} {timed(function, sample) * scale:8.0f}")
            cpu, wall, mebibytes = ours(folder, options.workers)
            name = f"spectangle prepare to survey file, workers={options.workers}"
            print(f"  {name:62s} {cpu / n * 1e6:8.0f}   ({cpu:.1f} s CPU, {wall:.1f} s wall, {mebibytes:.0f} MiB)")


if __name__ == "__main__":
    main()
