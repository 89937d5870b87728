"""Which labels to give to generated spectra: set.teff=7500, set.teff=[5000,6000] or set.teff=4000:6500:250.

Shapes: n stars, G points of the grid, K labels.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spectangle.errors import SpectangleError, did_you_mean
from spectangle.inference.calibration import Calibration

__all__ = ["asked_values", "beyond", "changed_labels", "label_grid"]

MOST = 1_000_000  # points of a grid


def label_grid(
    changes: Mapping[str, Any], labels: Sequence[str], attributes: Sequence[str] = ()
) -> list[dict[str, float]]:
    """All combinations of the values asked for, one dict per point of the grid; one empty dict if nothing is asked.

    Raises:
        SpectangleError: A label is unknown or an attribute, or a value is no number, list or range.
    """
    unknown = [name for name, value in changes.items() if value is not None and name not in labels]
    if named := [name for name in unknown if name in attributes]:
        raise SpectangleError(
            f"set.{named[0]}: {named[0]} is no label of the run but an attribute, which generate does not set; its "
            f"labels are {', '.join(labels)}."
        )
    if unknown:
        raise SpectangleError(
            f"set.{unknown[0]}: the run does not know this label; its labels are {', '.join(labels)}."
            f"{did_you_mean(unknown[0], labels)}"
        )
    wanted = {name: _values(name, value) for name, value in changes.items() if value is not None}
    if (number := math.prod(len(values) for values in wanted.values())) > MOST:
        raise SpectangleError(
            f"set names {number:,} sets of labels; at most {MOST:,} can be made at once. Take larger steps."
        )
    return [dict(zip(wanted, point, strict=True)) for point in itertools.product(*wanted.values())]


def asked_values(names: Sequence[str], grid: Sequence[Mapping[str, float]]) -> np.ndarray:
    """The values [G, K] float32 that labels get at each point of the grid; NaN where they stay as they are."""
    return np.array([[point.get(name, np.nan) for name in names] for point in grid], dtype=np.float32)


def changed_labels(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Labels [n, K] float32 of stars [n, K] with the values [n, K] of :func:`asked_values`."""
    return np.where(np.isnan(values), labels, values).astype(np.float32)


def beyond(
    grid: Sequence[Mapping[str, float]], names: Sequence[str], units: Mapping[str, str], calibration: Calibration
) -> list[str]:
    """Say how far the values asked for lie beyond the training stars, in sentences.

    Arguments:
        grid: The values asked for.
        names, units: Of the labels.
        calibration: Knows the training stars.
    """
    low, high = calibration.label_range
    sentences = []
    for k, name in enumerate(names):
        values = [point[name] for point in grid if name in point]
        if values and min(values) < low[k]:
            sentences.append(_sentence(name, min(values), low[k], "start at", units[name], high[k] - low[k]))
        if values and max(values) > high[k]:
            sentences.append(_sentence(name, max(values), high[k], "end at", units[name], high[k] - low[k]))
    return sentences


def _sentence(name: str, value: float, edge: float, reach: str, unit: str, width: float) -> str:
    past = abs(value - edge)
    far = f"{past:.3g} {unit} beyond them, {past / width:.0%} of their range"
    return f"{name} = {value:g} {unit}: the training stars {reach} {edge:.4g} {unit}, so this is {far}."


def _values(name: str, value: Any) -> list[float]:
    text = f"set.{name}={value}"
    try:
        if isinstance(value, (list, tuple)):
            values = [float(one) for one in value]
        elif isinstance(value, str) and ":" in value:
            values = _range(*(float(part) for part in value.split(":")))
        else:
            values = [float(value)]
        if not values or not np.isfinite(values).all():
            raise ValueError("a spectrum needs a number")
        return values
    except (TypeError, ValueError, OverflowError, MemoryError):
        raise SpectangleError(
            f"{text} is no number, list or range; write {text.split('=')[0]}=6000, =[5000,6000] or =4000:6500:250 "
            "(both ends included)."
        ) from None


def _range(start: float, stop: float, step: float) -> list[float]:
    if not step > 0 or stop < start or (stop - start) / step > MOST:
        raise ValueError("a range runs upwards")
    return [float(np.float32(value)) for value in start + step * np.arange(int((stop - start) / step + 1e-9) + 1)]
