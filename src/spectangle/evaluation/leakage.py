r"""What stars that the encoder never saw still tell of a label: cross-fitted probes, the population floor, the excess.

The adversary removes a label from the latents of training stars; a probe that is fitted on the same stars cannot see
what comes back on others. Here every prediction is of a star that neither the encoder nor the probe was fitted on.

Shapes: N stars, F features, K labels, D of them, S stars that are scored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spectangle.evaluation.cross_fit import FEWEST_STARS, CrossFit, Measured, Predictions, stacked
from spectangle.metrics import r2

__all__ = [
    "LEAST_REFERENCE",
    "Floor",
    "FloorOf",
    "bootstrap_r2",
    "floor_gains",
    "floor_predictions",
    "leaks",
    "population_floor",
    "share_lost",
    "simex",
]

SIMEX_STEPS = (0.5, 1.0, 1.5)
LEAST_REFERENCE = 0.05  # R2 from the raw spectra of which a share can be lost


def simex(floor: Any, measured: Mapping[float, float]) -> float:
    r"""How much a floor gains when the errors of the kept labels are taken out: SIMEX (Cook & Stefanski 1994,
    doi:10.1080/01621459.1994.10476871).

    The floor :math:`R^2(\zeta)` is measured with :math:`\zeta` times the variance of the errors added, and the parabola
    through these is read at :math:`\zeta = -1`, where none are left.

    Arguments:
        floor: :math:`R^2(0)`.
        measured: :math:`R^2(\zeta)` by :math:`\zeta`.
    """
    steps = np.array([0.0, *measured])
    parabola = np.polyfit(steps, [floor, *measured.values()], 2)
    return max(0.0, float(np.polyval(parabola, -1.0) - np.polyval(parabola, 0.0)))


def bootstrap_r2(predictions: Sequence[np.ndarray], truth: np.ndarray, draws: int = 200, seed: int = 0) -> np.ndarray:
    """R2 of each prediction [N] in resamples of the stars with a truth [len(predictions), draws]; the same stars for
    all, so that differences are paired. NaN where a resample is of one star.
    """
    random = np.random.default_rng(seed)
    known = np.isfinite(truth)
    predictions, truth = [prediction[known] for prediction in predictions], truth[known]
    n = len(truth)
    weights = random.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)  # how often each star is drawn
    truth = truth.astype(np.float64)
    variance = weights @ truth**2 / n - (weights @ truth / n) ** 2
    errors = np.stack([weights @ (prediction - truth) ** 2 / n for prediction in predictions])
    varied = variance > 0
    return np.where(varied, 1 - errors / np.where(varied, variance, 1.0), np.nan)


def share_lost(r2_latent: float, r2_reference: float) -> float | None:
    """Fraction of what the reference knows that the latent has lost, (R2_reference - R2_z) / R2_reference in [0, 1].

    None where the reference is below :data:`LEAST_REFERENCE` (0.05), or unknown: what is not there cannot be lost. R2
    of some hundreds of stars scatters by some hundredths from seed to seed, so that a share of less than that would be
    0 in one run and 1 in the next.
    """
    if not r2_reference >= LEAST_REFERENCE:  # nan too
        return None
    return float(np.clip((r2_reference - r2_latent) / r2_reference, 0, 1))


@dataclass(frozen=True)
class Leak:
    """What is left of one disentangled label: R2 with the latent, R2 of the floor, their difference and its 95 %
    interval.
    """

    floor: float
    excess: float
    low: float
    high: float
    decoder: float  # what a perfect latent may say because the decoder is told labels with errors
    upper_bound: bool  # the floor has errors in it that are not known
    stars: int


@dataclass(frozen=True)
class Floor:
    """What the kept labels alone say of the D dropped ones: predictions [S, D] by probe, and what R2 of each label [D]
    gains when the errors of the kept labels are taken out.
    """

    predictions: Predictions
    gains: Sequence[float]


def population_floor(fit: CrossFit, entangled: Sequence[int], disentangled: Sequence[int], seed: int) -> Floor:
    """Measure what the kept labels alone say of the dropped ones. No latent has a part in it: it is the same for every
    run on the same stars.
    """
    if not entangled:
        return Floor({}, [0.0] * len(disentangled))
    return Floor(floor_predictions(fit, entangled, disentangled), floor_gains(fit, entangled, disentangled, seed))


def floor_predictions(fit: CrossFit, entangled: Sequence[int], disentangled: Sequence[int]) -> Predictions:
    """What probes read of the D dropped labels in the kept ones [S, D], by probe."""
    return fit.predictions(lambda stars: stars.known(entangled)[0], lambda stars: stars.labels[:, list(disentangled)])


def floor_gains(fit: CrossFit, entangled: Sequence[int], disentangled: Sequence[int], seed: int) -> list[float]:
    """What the floors of the D dropped labels gain when the errors of the kept ones are taken out; nothing where these
    are not known, or the true labels are.
    """
    if fit.scored.known(entangled)[1] != "errors":
        return [0.0] * len(disentangled)
    probes = {name: probe for name, probe in fit.probes.items() if name in ("ridge", "boosting", "svr")} or fit.probes
    random = np.random.default_rng(
        [seed, 1994]
    )  # a stream of its own: one that also made the labels would not be noise
    parts = [
        None if part is None else part[np.isfinite(part.label_errors[:, list(entangled)]).all(axis=1)]
        for part in (fit.seen, fit.scored, fit.spare)
    ]
    floors: dict[float, list[float]] = {}
    for step in (0.0, *SIMEX_STEPS):
        blurred = [None if part is None else part.blurred(entangled, step, random) for part in parts]
        again = CrossFit(probes, *blurred, small=fit.small, folds=fit.folds)  # pyright: ignore[reportArgumentType]
        predicted = again.predictions(
            lambda stars: stars.labels[:, list(entangled)], lambda stars: stars.labels[:, list(disentangled)]
        )
        floors[step] = [
            r2(fit.stacked(predicted, j, truth), truth)
            for j, truth in enumerate(fit.scored.labels[:, list(disentangled)].T.astype(float))
        ]
    return [simex(floors[0.0][j], {step: floors[step][j] for step in SIMEX_STEPS}) for j in range(len(disentangled))]


FloorOf = Callable[[CrossFit, Sequence[int], Sequence[int], int], Floor]  # population_floor, or one that remembers


def leaks(
    fit: CrossFit,
    z_only: Predictions,
    entangled: Sequence[int],
    disentangled: Sequence[int],
    bootstrap: int,
    seed: int,
    floor_of: FloorOf = population_floor,
) -> dict[int, Leak]:
    r"""Leakage of the dropped labels beyond what the kept labels imply, by column.

    The floor is :math:`R^2` from the kept labels: their true values where the survey has them; otherwise the
    catalogue's, corrected for their errors by :func:`simex`; where neither is known, the excess is an upper bound. The
    excess is :math:`R^2` from all
    probes of (z, kept labels), of z alone and of the kept labels alone, stacked, minus the floor. Stars without one of
    the kept labels are left out; of a label that too few of the others have, or all with the same value, nothing is
    said. ``floor_of`` measures the floor.
    """
    fit, rows = fit.having(entangled)
    disentangled = [i for i in disentangled if _measurable(fit, i)]
    if not disentangled:
        return {}
    z_only = {name: prediction[rows] for name, prediction in z_only.items()}

    def targets(stars: Measured) -> np.ndarray:
        return stars.labels[:, list(disentangled)]

    def kept(stars: Measured) -> np.ndarray:
        return stars.known(entangled)[0]

    source = fit.scored.known(entangled)[1] if entangled else "true"
    alone = floor_of(fit, entangled, disentangled, seed)
    both = fit.predictions(lambda stars: np.c_[stars.z, kept(stars)], targets) if entangled else {}
    found = {}
    for j, i in enumerate(disentangled):
        truth = fit.scored.labels[:, i].astype(np.float64)
        floor, gain = fit.stacked(alone.predictions, j, truth), alone.gains[j]
        by_kept = [p[:, j] for p in (*alone.predictions.values(), *both.values())]
        with_z = stacked(by_kept + [p[:, i] for p in z_only.values()], truth, fit.fold)
        draws = bootstrap_r2([with_z, floor], truth, bootstrap, seed)
        low, high = np.nanquantile(draws[0] - draws[1] - gain, [0.025, 0.975])
        level = r2(floor, truth) + gain
        known = np.isfinite(truth)
        noise = float(np.mean(fit.scored.label_errors[known, i] ** 2) / truth[known].var())
        excess = r2(with_z, truth) - level
        interval = float(low), float(high)
        found[i] = Leak(level, excess, *interval, level + noise, source == "catalogue", int(known.sum()))
    return found


def _measurable(fit: CrossFit, column: int) -> bool:
    """Whether enough stars that are fitted on, and in every fold of those that are scored, have a label, with different
    values.
    """
    truth = fit.scored.labels[:, column]
    counts = [np.isfinite(truth[fit.fold == fold]).sum() for fold in range(fit.folds)]
    return bool(min(counts) >= FEWEST_STARS // fit.folds and np.nanstd(truth) > 0)
