"""What nobody can beat on the test stars: their labels as read at the physical limit, and its errors.

Only of the embedded survey: of real stars nobody knows the spectra without noise, nor what they look like with a little
more of a label, nor the population that they come from.

Shapes: n stars, K labels.
"""

import time
from typing import TYPE_CHECKING

import numpy as np

from spectangle.metrics import label_metrics
from spectangle.synthetic.limit import physical_limit

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule

__all__ = ["limit_metrics", "limit_residuals"]

MOST_STARS = 13_000  # of the test stars, all of the paper's: four seconds of one core, once for a survey


def limit_metrics(data: "SpectraDataModule") -> dict[str, float]:
    """Errors at the limit, ``limit/<label>/mae`` and so on, of up to 13,000 test stars; none where nobody knows it."""
    start = time.perf_counter()
    found = _at_limit(data)
    if found is None:
        return {}
    rows, read = found
    known = [i for i, name in enumerate(data.labels) if np.isfinite(read[:, i]).all()]
    names, catalogue = [data.labels[i] for i in known], data.test.labels[rows].numpy()[:, known]
    return label_metrics("limit", names, read[:, known], catalogue) | {"time/limit": time.perf_counter() - start}


def limit_residuals(data: "SpectraDataModule", rows: np.ndarray) -> dict[str, np.ndarray]:
    """Label at the limit - catalogue by label, of some test stars [n]: NaN for stars whose limit was not computed; none
    where nobody knows it.
    """
    found = _at_limit(data)
    if found is None:
        return {}
    everyone = np.full((len(data.test), len(data.labels)), np.nan)
    everyone[found[0]] = found[1]
    residuals = (everyone - data.test.labels.numpy())[rows]
    return dict(zip(data.labels, residuals.T, strict=True))


def _at_limit(data: "SpectraDataModule") -> tuple[np.ndarray, np.ndarray] | None:
    """Some test stars [n], and their labels [n, K] at the limit."""
    rows = np.sort(np.random.default_rng(0).permutation(len(data.test))[:MOST_STARS])
    read = physical_limit(str(data.path), data.test.rows[rows], data.labels)
    return None if read is None else (rows, read)
