"""Are generated spectra right? Against the LTE emulator, where the truth is known, and by an independent regressor.

Each test star gets the value that another test star has in one label, and keeps its other labels and its latent.

* Truth (embedded survey only): the emulator's spectrum with that label changed by as much, at the star's own broadening
  and velocity. ``rms_unchanged`` is the rms of leaving the spectrum as it was, ``rms_generated`` that of the generated one,
  ``rms_floor`` that of the plain reconstruction; ``captured`` = 1 - (error of the change)^2 / (true change)^2.
* Swap and re-read: the baseline regressor on raw spectra, which never saw this model, reads the generated spectrum.
  ``slope`` of the change that it reads over the change asked for (1 is right), ``mae`` of the value that it reads, and how
  far the other labels move.

Only swaps that stay near the training stars count; the others are extrapolation.

Shapes: n stars, P pixels, K labels.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.errors import SpectangleError
from spectangle.generation.generate import Parents, parents_of
from spectangle.outputs import write_beside
from spectangle.runs import Run
from spectangle.survey import Survey
from spectangle.trained import TrainedModel, load

__all__ = ["Swap", "check_generation", "swap_labels"]

log = logging.getLogger(__name__)


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


def check_generation(run: str, n_stars: int | None = 2000, survey: str | None = None, figure: bool = True) -> dict[str, Any]:
    """Check the generated spectra of a run on its test stars; write the numbers and a figure into the run folder.

    Arguments:
        run: Folder of the run.
        n_stars: Test stars to use at most.
        survey: Where the run's survey lies now, if it was moved.
        figure: Whether ``figures/generation_check.png`` is drawn.

    Returns:
        ``{"emulator": {label: {...}}, "reread": {label: {...}}}``; no ``emulator`` where the truth is not known.
    """
    from spectangle.console import render
    from spectangle.generation.tables import emulator_table, reread_table

    folder, model = Run(run), load(run, survey)
    if model.calibration is None:
        raise SpectangleError("The check needs a run with conditioning=observed.")
    data = folder.data(survey)
    parents = parents_of(model, run, None, survey, n_stars=n_stars)
    truth = _truth(data.path or "", data.test.rows[: len(parents)], model.labels)
    swaps = [swap_labels(parents.labels, i, model) for i in range(len(model.labels))]
    regressor = folder.regressor("spectra")
    results: dict[str, Any] = {"reread": {model.labels[s.label]: reread(model, parents, s, regressor) for s in swaps}}
    if truth is not None:
        results["emulator"] = {model.labels[s.label]: compare_with_emulator(model, parents, s, truth) for s in swaps}
        log.info("%s", render(emulator_table(results["emulator"], model.units)))
    log.info("%s", render(reread_table(results["reread"], model.labels, model.units, folder.metrics)))
    write_beside(folder.derived("generation_check.json"), json.dumps(results, indent=2) + "\n")
    if figure:
        from spectangle.generation.tables import draw_check

        log.info("%s", draw_check(model, parents, swaps, truth, regressor, folder.path / "figures" / "generation_check.png"))
    return results


def swap_labels(labels: np.ndarray, label: int, model: TrainedModel, seed: int = 0) -> Swap:
    """Give each star [n, K] the value of another one in one label."""
    swapped = labels.copy()
    swapped[:, label] = labels[np.random.default_rng(seed + label).permutation(len(labels)), label]
    assert model.calibration is not None
    return Swap(label, swapped, model.calibration.label_distance(swapped) <= 1)


def compare_with_emulator(model: TrainedModel, parents: Parents, swap: Swap, truth: Truth) -> dict[str, float]:
    """Compare the generated spectra of near swaps with the emulator's."""
    rows = np.flatnonzero(swap.near & inside_emulator(truth.labels + swap.labels - parents.labels))
    before, after = true_spectra(truth, parents, swap, rows)
    reconstruction = model.decode(parents.latent[rows], parents.labels[rows])
    generated = model.decode(parents.latent[rows], swap.labels[rows])
    error, change = (generated - reconstruction) - (after - before), after - before
    return {
        "stars": len(rows),
        "median_change": float(np.median(np.abs(swap.labels - parents.labels)[rows, swap.label])),
        "rms_floor": _rms(reconstruction - before),
        "rms_generated": _rms(generated - after),
        "rms_unchanged": _rms(before - after),
        "captured": float(1 - np.square(error).mean() / np.square(change).mean()),
    }


def true_spectra(truth: Truth, parents: Parents, swap: Swap, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The emulator's spectra [m, P] of some stars before and after the swap."""
    from spectangle.synthetic import emulate
    from spectangle.synthetic.observation import shift_velocity

    after = truth.labels + swap.labels - parents.labels
    pair = (shift_velocity(emulate(labels[rows], truth.vbroad[rows]), truth.velocity[rows]) for labels in (truth.labels, after))
    before, changed = pair
    return before, changed


def reread(model: TrainedModel, parents: Parents, swap: Swap, regressor: Any) -> dict[str, Any]:
    """Let a regressor on spectra read the labels before and after near swaps."""
    rows = np.flatnonzero(swap.near)
    before, after = reread_labels(model, parents, swap, regressor, rows)
    asked = (swap.labels - parents.labels)[rows, swap.label]
    moved = after - before
    return {
        "stars": len(rows),
        "slope": float((moved[:, swap.label] * asked).sum() / np.square(asked).sum()),
        "mae": float(np.abs(after[:, swap.label] - swap.labels[rows, swap.label]).mean()),
        "moved": {name: float(np.abs(moved[:, i]).mean()) for i, name in enumerate(model.labels) if i != swap.label},
        "asked": float(np.abs(asked).mean()),
    }


def reread_labels(model: TrainedModel, parents: Parents, swap: Swap, regressor: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels [m, K] that a regressor on spectra reads before and after a swap."""
    before = regressor.predict(model.decode(parents.latent[rows], parents.labels[rows]))
    return before, regressor.predict(model.decode(parents.latent[rows], swap.labels[rows]))


def _truth(path: str | Path, rows: np.ndarray, labels: tuple[str, ...]) -> Truth | None:
    from spectangle.synthetic import LABELS

    with Survey(path) as survey:
        needed = [*(f"true_{name}" for name in LABELS), "vbroad", "radial_velocity_residual"]
        if tuple(labels) != tuple(LABELS) or not set(needed) <= set(survey.columns):
            return None
        columns: Mapping[str, np.ndarray] = {name: survey.column(name)[rows] for name in needed}
    return Truth(np.column_stack([columns[f"true_{name}"] for name in LABELS]), columns["vbroad"], columns["radial_velocity_residual"])


def inside_emulator(labels: np.ndarray) -> np.ndarray:
    """Whether the emulator knows such labels [n]."""
    from spectangle.synthetic import LIMITS

    low, high = np.asarray(LIMITS).T
    return ((labels >= low) & (labels <= high)).all(axis=1)


def _rms(residual: np.ndarray) -> float:
    return float(np.sqrt(np.square(residual).mean()))
