"""Lists of numbers written as text, `[0.99,NaN,0.98]`, one per star: read by one pass of Arrow's CSV number parser.

Brackets are cut off, commas become line breaks, and the text of a whole chunk is read as one column of float32. Of the
ways measured (benchmarks/archive_throughput.py) this is the fastest: 2 times np.fromstring and json.loads, 5 times
splitting and converting in numpy.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv

__all__ = ["parse_lists"]

NULLS = ["NaN", "nan", "null", "NULL", "Null"]


def parse_lists(texts: Sequence[bytes | None], n_values: int | None = None) -> tuple[np.ndarray, dict[int, str]]:
    """Read n lists of equal length.

    Arguments:
        texts: One list each, in brackets of any kind; None where the field is missing.
        n_values: Values that each list must have; None takes it from the first list that can be read.

    Returns:
        The values [n, n_values] float32 (NaN for missing ones and for the rows that cannot be read), and for each of
        those rows the reason.
    """
    reasons = {i: "the list is missing" for i, text in enumerate(texts) if text is None}
    if n_values is None:
        n_values = next((text.count(b",") + 1 for text in texts if text is not None), 0)
    for i, text in enumerate(texts):
        if text is not None and (count := text.count(b",") + 1) != n_values:
            reasons[i] = f"the list has {count} values and {n_values} were expected"
    values = np.full((len(texts), n_values), np.nan, dtype=np.float32)
    good = [i for i in range(len(texts)) if i not in reasons]
    try:
        if good:
            values[good] = _parse([texts[i] for i in good], n_values)
    except pa.ArrowInvalid:
        reasons |= _parse_one_by_one(texts, good, values)
    return values, reasons


def _parse_one_by_one(texts, rows: list[int], values: np.ndarray) -> dict[int, str]:
    """Fill the rows of values [n, n_values] that can be read; return the reasons for the others."""
    reasons = {}
    for i in rows:
        try:
            values[i] = _parse([texts[i]], values.shape[1])
        except pa.ArrowInvalid as error:
            reasons[i] = f"the list holds something that is no number ({str(error).split(': ')[-1]})"
    return reasons


def _parse(texts: Sequence[bytes], n_values: int) -> np.ndarray:
    lines = b"\n".join(text.strip()[1:-1] for text in texts).replace(b",", b"\n").replace(b" ", b"")
    column = pyarrow.csv.read_csv(
        pa.BufferReader(lines),
        read_options=pyarrow.csv.ReadOptions(column_names=["value"], use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(ignore_empty_lines=False),
        convert_options=pyarrow.csv.ConvertOptions(column_types={"value": pa.float32()}, null_values=NULLS),
    )["value"]
    return column.to_numpy().reshape(len(texts), n_values)
