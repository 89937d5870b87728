"""Are generated spectra right? Against the LTE emulator, where the truth is known, and by an independent regressor.

Each test star gets the value that another test star has in one label, and keeps its other labels and its latent.

* Truth (embedded survey only): the emulator's spectrum with that label changed by as much, at the star's own broadening
  and velocity. ``rms_unchanged`` is the rms of leaving the spectrum as it was, ``rms_generated`` that of the generated
  one, ``rms_floor`` that of the plain reconstruction; ``captured`` = 1 - (error of the change)^2 / (true change)^2.
* Swap and re-read: the baseline regressor on raw spectra, which never saw this model, reads the generated spectrum.
  ``slope`` of the change that it reads over the change asked for (1 is right), ``mae`` of the value that it reads, and
  how far the other labels move.

Only swaps that stay near the training stars count; the others are extrapolation.

Shapes: n stars, P pixels, K labels.
"""

import json
import logging
from typing import Any

import numpy as np

from spectangle.console import render
from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.evaluation.regressors import load_run_regressor
from spectangle.files import write_beside
from spectangle.generation.check_report import draw_check, emulator_table, reread_table
from spectangle.generation.parents import Parents, parent_blocks, together
from spectangle.generation.swaps import (
    Swap,
    Truth,
    emulator_truth,
    inside_emulator,
    reread_labels,
    swap_labels,
    true_spectra,
)
from spectangle.inference.load import load
from spectangle.inference.trained import TrainedModel
from spectangle.runs.folder import Run

__all__ = ["check_generation"]

log = logging.getLogger(__name__)


def check_generation(
    run: str, n_stars: int | None = 2000, survey: str | None = None, figure: bool = True
) -> dict[str, Any]:
    """Check the generated spectra of a run on its test stars; write the numbers and a figure into the run folder.

    Arguments:
        run: Folder of the run.
        n_stars: Test stars to use at most.
        survey: Where the run's survey lies now, if it was moved.
        figure: Whether ``figures/generation_check.png`` is drawn.

    Returns:
        ``{"emulator": {label: {...}}, "reread": {label: {...}}}``; no ``emulator`` where the truth is not known.
    """
    folder, model = Run(run), load(run, survey)
    if model.calibration is None:
        raise SpectangleError("The check needs a run with model.conditioning=observed.")
    data = load_stars(folder, survey)
    parents = together(parent_blocks(model, run, None, survey, n_stars=n_stars))
    truth = emulator_truth(data.path or "", data.test.rows[: len(parents)], model.labels)
    swaps = [swap_labels(parents.labels, i, model) for i in range(len(model.labels))]
    if far := [model.labels[swap.label] for swap in swaps if not swap.near.any()]:
        log.warning("%s: left out, since no training star is near any of the changed ones.", ", ".join(far))
        swaps = [swap for swap in swaps if swap.near.any()]
    if not swaps:
        raise SpectangleError("No training star is near any of the changed stars; take more of them: n_stars=2000.")
    regressor = load_run_regressor(folder, "spectra")
    results: dict[str, Any] = {"reread": {model.labels[s.label]: reread(model, parents, s, regressor) for s in swaps}}
    if truth is not None:
        results["emulator"] = {model.labels[s.label]: compare_with_emulator(model, parents, s, truth) for s in swaps}
        log.info("%s", render(emulator_table(results["emulator"], model.units)))
    log.info("%s", render(reread_table(results["reread"], model.labels, model.units, folder.metrics)))
    write_beside(folder.derived("generation_check.json"), json.dumps(results, indent=2) + "\n")
    if figure:
        log.info(
            "%s", draw_check(model, parents, swaps, truth, regressor, folder.path / "figures" / "generation_check.png")
        )
    return results


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


def _rms(residual: np.ndarray) -> float:
    return float(np.sqrt(np.square(residual).mean()))
