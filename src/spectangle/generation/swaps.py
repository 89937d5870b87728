"""One label of each star replaced by another star's, and what the emulator and a regressor say of the spectrum then.

Shapes: n stars, m of them, P pixels, K labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.generation.parents import Parents
from spectangle.inference.trained import TrainedModel
from spectangle.survey.file import Survey
from spectangle.synthetic import LABELS, LIMITS, emulate
from spectangle.synthetic.embedded import TRUE_COLUMNS
from spectangle.synthetic.observation import shift_velocity

__all__ = ["Swap", "Truth", "emulator_truth", "inside_emulator", "reread_labels", "swap_labels", "true_spectra"]


@dataclass(frozen=True)
class Swap:
    """One label of each star replaced by another star's.

    Arguments:
        label: Which.
        labels: Labels after the swap [n, K].
        near: Whether a training star is near them [n].
    """

    label: int
    labels: np.ndarray
    near: np.ndarray


@dataclass(frozen=True)
class Truth:
    """What the emulator needs: true labels [n, K], broadening [n] and velocity [n]."""

    labels: np.ndarray
    vbroad: np.ndarray
    velocity: np.ndarray


def swap_labels(labels: np.ndarray, label: int, model: TrainedModel, seed: int = 0) -> Swap:
    """Give each star [n, K] the value of another one in one label."""
    swapped = labels.copy()
    swapped[:, label] = labels[np.random.default_rng(seed + label).permutation(len(labels)), label]
    assert model.calibration is not None
    return Swap(label, swapped, model.calibration.label_distance(swapped) <= 1)


def true_spectra(truth: Truth, parents: Parents, swap: Swap, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The emulator's spectra [m, P] of some stars before and after the swap."""
    after = truth.labels + swap.labels - parents.labels
    pair = (
        shift_velocity(emulate(labels[rows], truth.vbroad[rows]), truth.velocity[rows])
        for labels in (truth.labels, after)
    )
    before, changed = pair
    return before, changed


def reread_labels(
    model: TrainedModel, parents: Parents, swap: Swap, regressor: Any, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [m, K] that a regressor on spectra reads before and after a swap."""
    before = regressor.predict(model.decode(parents.latent[rows], parents.labels[rows]))
    return before, regressor.predict(model.decode(parents.latent[rows], swap.labels[rows]))


def inside_emulator(labels: np.ndarray) -> np.ndarray:
    """Whether the emulator knows such labels [n]."""
    low, high = np.asarray(LIMITS).T
    return ((labels >= low) & (labels <= high)).all(axis=1)


def emulator_truth(path: str | Path, rows: np.ndarray, labels: tuple[str, ...]) -> Truth | None:
    """What the emulator needs of some stars of a survey; None if the survey is not the embedded one."""
    with Survey(path) as survey:
        if tuple(labels) != tuple(LABELS) or not set(TRUE_COLUMNS) <= set(survey.columns):
            return None
        columns: Mapping[str, np.ndarray] = {name: survey.column(name)[rows] for name in TRUE_COLUMNS}
    return Truth(
        np.column_stack([columns[f"true_{name}"] for name in LABELS]),
        columns["vbroad"],
        columns["radial_velocity_residual"],
    )
