r"""What stars that the encoder never saw still tell of a label: cross-fitted probes, the population floor, the excess.

The adversary removes a label from the latents of training stars; a probe that is fitted on the same stars cannot see
what comes back on others. Here every prediction is of a star that neither the encoder nor the probe was fitted on.

Shapes: N stars, F features, K labels, D of them, S stars that are scored.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls
from sklearn.base import clone
from sklearn.multioutput import MultiOutputRegressor
from sklearn.preprocessing import StandardScaler

from spectangle.evaluation.regressors import label_groups
from spectangle.metrics import r2
from spectangle.survey.star_draws import star_uniform

__all__ = [
    "CrossFit",
    "Floor",
    "FloorOf",
    "Measured",
    "bootstrap_r2",
    "leaks",
    "population_floor",
    "share_lost",
    "simex",
    "stacked",
]

Predictions = dict[str, np.ndarray]
FOLD_STREAM, SIMEX_STEPS = 3, (0.5, 1.0, 1.5)
FEWEST_STARS = 10  # that an excess is measured on


@dataclass(frozen=True)
class Measured:
    """Features and labels of stars: what a probe reads and what it is asked for.

    Arguments:
        source_id: [N].
        z: Latents [N, Z].
        labels: As the catalogue has them [N, K], NaN where one is missing.
        label_errors: One sigma [N, K]; NaN where there is none.
        true_labels: [N, K]; NaN where nobody knows them.
    """

    source_id: np.ndarray
    z: np.ndarray
    labels: np.ndarray
    label_errors: np.ndarray
    true_labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Any) -> "Measured":
        return Measured(
            self.source_id[rows], self.z[rows], self.labels[rows], self.label_errors[rows], self.true_labels[rows]
        )

    def known(self, columns: Sequence[int]) -> tuple[np.ndarray, str]:
        """Values of some labels [N, D], and what they are: ``true``, else ``errors`` (the catalogue's, with known
        errors), else ``catalogue``.
        """
        columns = list(columns)
        if np.isfinite(self.true_labels[:, columns]).all():
            return self.true_labels[:, columns], "true"
        return self.labels[:, columns], "errors" if np.isfinite(self.label_errors[:, columns]).all() else "catalogue"

    def blurred(self, columns: Sequence[int], steps: float, random: np.random.Generator) -> "Measured":
        """The same stars, some of whose labels have ``steps`` times the variance of their errors added once more."""
        labels = self.labels.copy()
        errors = self.label_errors[:, list(columns)]
        labels[:, list(columns)] += np.sqrt(steps) * errors * random.standard_normal(errors.shape)
        return replace(self, labels=labels.astype(np.float32))


class CrossFit:
    """Predict labels of unseen stars with probes that are fitted on other unseen stars.

    Arguments:
        probes: Unfitted scikit-learn regressors by name.
        seen: Stars that the encoder was trained on.
        scored: Unseen stars that are predicted, fold by fold.
        spare: Unseen stars that are only fitted on.
        small: Also fit on seen and unseen stars together: where there are few, more of them make the stronger probe.
        folds: Parts of the scored stars, by a hash of their ids.
    """

    def __init__(
        self,
        probes: Mapping[str, Any],
        seen: Measured,
        scored: Measured,
        spare: Measured | None = None,
        small: bool = False,
        folds: int = 5,
    ):
        self.probes, self.seen, self.scored, self.spare, self.small = dict(probes), seen, scored, spare, small
        place = star_uniform(scored.source_id, seed=0, stream=FOLD_STREAM)
        self.fold = np.argsort(np.argsort(place)) * folds // len(place)  # parts of equal size
        self.folds = folds

    def predictions(
        self,
        features: Any,
        targets: Any,
        probes: Mapping[str, Any] | None = None,
        folds: Sequence[int] | None = None,
    ) -> Predictions:
        """Predictions [S, D] of each probe and set of fitting stars, from features(Measured) [N, F] for
        targets(Measured) [N, D]; NaN for stars of other folds where ``folds`` names some.
        """
        probes = self.probes if probes is None else probes
        x, y = features(self.scored), targets(self.scored)
        out = {name: np.full(y.shape, np.nan) for name in probes}
        out |= {f"{name}/with_seen": np.full(y.shape, np.nan) for name in probes if self.small}
        helds = [self.fold == fold for fold in (range(self.folds) if folds is None else folds)]
        for suffix in ("", "/with_seen")[: 2 if self.small else 1]:
            sets = [self._fitted_on(held, bool(suffix)) for held in helds]
            fit_x, fit_y = (
                [np.concatenate([take(part) for part in parts]) for parts in sets] for take in (features, targets)
            )
            found = fitted_predictions(probes, fit_x, fit_y, [x[held] for held in helds])
            for name, each in found.items():
                for held, predicted in zip(helds, each, strict=True):
                    out[name + suffix][held] = predicted
        return out

    def _fitted_on(self, held: np.ndarray, with_seen: bool) -> list[Measured]:
        parts = [self.scored[~held], self.spare, self.seen if with_seen else None]
        return [part for part in parts if part is not None and len(part)]

    def from_seen(self, features: Any, targets: Any) -> Predictions:
        """The same, fitted once on stars that the encoder was trained on."""
        x, y, new = [features(self.seen)], [targets(self.seen)], [features(self.scored)]
        return {f"{name}/seen": found for name, (found,) in fitted_predictions(self.probes, x, y, new).items()}

    def having(self, columns: Sequence[int]) -> tuple["CrossFit", Any]:
        """The same with the stars that have some labels, and which of the scored ones these are."""
        parts = [self.seen, self.scored, self.spare]
        rows = [None if part is None else np.isfinite(part.labels[:, list(columns)]).all(axis=1) for part in parts]
        if all(own is None or own.all() for own in rows):
            return self, slice(None)
        kept = [None if part is None else part[own] for part, own in zip(parts, rows, strict=True)]
        fit = CrossFit(self.probes, *kept, small=self.small, folds=self.folds)  # pyright: ignore[reportArgumentType]
        fit.fold = self.fold[rows[1]]
        return fit, rows[1]

    def asking(self, probes: Mapping[str, Any]) -> "CrossFit":
        """The same stars and folds for other probes."""
        fit = copy(self)
        fit.probes = dict(probes)
        return fit

    def stacked(self, candidates: Predictions, column: int, truth: np.ndarray) -> np.ndarray:
        """The candidates' predictions of one label [S], put together fold by fold, see :func:`stacked`."""
        return stacked([prediction[:, column] for prediction in candidates.values()], truth, self.fold)


def fitted_predictions(
    probes: Mapping[str, Any], x: Sequence[np.ndarray], y: Sequence[np.ndarray], new_x: Sequence[np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """Fit each probe to each of several sets of features [N, F] and labels [N, D], both standardised; predict labels
    [M, D] of as many sets of new features [M, F]. Each label is learnt from the stars that have it.
    """
    groups = label_groups(np.concatenate(y))
    if len(groups) == 1 and all(np.isfinite(part).all() for part in y):
        return _of_complete_labels(probes, x, y, new_x)
    found = {name: [np.empty((len(new), y[0].shape[1])) for new in new_x] for name in probes}
    for columns in groups:
        known = [np.isfinite(part[:, columns[0]]) for part in y]
        if min(rows.sum() for rows in known) < FEWEST_STARS:  # nothing can be learnt in a fold: say what is usual
            everyone = np.concatenate([part[rows][:, columns] for part, rows in zip(y, known, strict=True)])
            usual = everyone.mean(axis=0) if len(everyone) else np.nan
            read = {name: [usual] * len(new_x) for name in probes}
        else:
            own_x = [part[rows] for part, rows in zip(x, known, strict=True)]
            own_y = [part[rows][:, columns] for part, rows in zip(y, known, strict=True)]
            read = _of_complete_labels(probes, own_x, own_y, new_x)
        for name, each in read.items():
            for out, predicted in zip(found[name], each, strict=True):
                out[:, columns] = predicted
    return found


def _of_complete_labels(
    probes: Mapping[str, Any], x: Sequence[np.ndarray], y: Sequence[np.ndarray], new_x: Sequence[np.ndarray]
) -> dict[str, list[np.ndarray]]:
    scales = [(StandardScaler().fit(a), StandardScaler().fit(b)) for a, b in zip(x, y, strict=True)]
    fit_x, fit_y, new_x = (
        [np.asarray(scale[i].transform(part)) for scale, part in zip(scales, parts, strict=True)]
        for i, parts in ((0, x), (1, y), (0, new_x))
    )
    # networks that a pack fits on its GPU are begun before the others are fitted here
    begun = {name: _begin(probe, fit_x, fit_y) for name, probe in probes.items()}
    return {
        name: [
            scale_y.inverse_transform(fitted.predict(new).reshape(len(new), -1))
            for fitted, (_, scale_y), new in zip(fit(), scales, new_x, strict=True)
        ]
        for name, fit in begun.items()
    }


def _begin(probe: Any, x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> Callable[[], list[Any]]:
    """Begin to fit a probe to each of several sets of stars; what is returned gives the fitted ones."""
    if hasattr(probe, "begin_each"):
        return probe.begin_each(x, y)
    if not probe.__sklearn_tags__().target_tags.multi_output:
        probe = MultiOutputRegressor(probe)
    unfitted: list[Any] = [clone(probe) for _ in x]
    return lambda: [one.fit(a, b) for one, a, b in zip(unfitted, x, y, strict=True)]


def stacked(candidates: Sequence[np.ndarray], truth: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """One prediction [S] of many [S]: in each fold their combination with non-negative weights that is best in the
    other folds.

    The choice among probes is never made on the stars that it is scored on (stacking: Wolpert 1992, Breiman 1996);
    probes that know nothing get no weight, and what is left is the mean. Stars whose truth [S] is NaN are only
    predicted.
    """
    result = np.empty(len(truth))
    columns = np.stack(candidates, axis=1).astype(np.float64) if len(candidates) else np.empty((len(truth), 0))
    for part in np.unique(fold):
        held = fold == part
        others = ~held & np.isfinite(truth)
        if not others.any():
            others = np.isfinite(truth)
        mean = truth[others].mean(dtype=np.float64)
        weights = nnls(columns[others] - mean, truth[others] - mean)[0] if columns.shape[1] else np.empty(0)
        result[held] = mean + (columns[held] - mean) @ weights
    return result


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
    all, so that differences are paired.
    """
    random = np.random.default_rng(seed)
    known = np.isfinite(truth)
    predictions, truth = [prediction[known] for prediction in predictions], truth[known]
    n = len(truth)
    weights = random.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)  # how often each star is drawn
    truth = truth.astype(np.float64)
    variance = weights @ truth**2 / n - (weights @ truth / n) ** 2
    errors = np.stack([weights @ (prediction - truth) ** 2 / n for prediction in predictions])
    return 1 - errors / variance


def share_lost(r2_latent: float, r2_reference: float) -> float:
    """Fraction of what the reference knows that the latent has lost, (R2_reference - R2_z) / R2_reference in [0, 1]."""
    return float(np.clip((r2_reference - r2_latent) / max(r2_reference, 1e-9), 0, 1))


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
    predictions = fit.predictions(
        lambda stars: stars.known(entangled)[0], lambda stars: stars.labels[:, list(disentangled)]
    )
    errors = fit.scored.known(entangled)[1] == "errors"
    return Floor(predictions, _floor_gains(fit, entangled, disentangled, seed) if errors else [0.0] * len(disentangled))


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
        low, high = np.quantile(draws[0] - draws[1] - gain, [0.025, 0.975])
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


def _floor_gains(fit: CrossFit, entangled: Sequence[int], disentangled: Sequence[int], seed: int) -> list[float]:
    """What the floors of the dropped labels gain when the errors of the kept ones are taken out."""
    probes = {name: probe for name, probe in fit.probes.items() if name in ("ridge", "boosting", "svr")} or fit.probes
    random = np.random.default_rng(
        [seed, 1994]
    )  # a stream of its own: one that also made the labels would not be noise
    floors: dict[float, list[float]] = {}
    for step in (0.0, *SIMEX_STEPS):
        blurred = [
            None if part is None else part.blurred(entangled, step, random)
            for part in (fit.seen, fit.scored, fit.spare)
        ]
        again = CrossFit(probes, *blurred, small=fit.small, folds=fit.folds)  # pyright: ignore[reportArgumentType]
        predicted = again.predictions(
            lambda stars: stars.labels[:, list(entangled)], lambda stars: stars.labels[:, list(disentangled)]
        )
        floors[step] = [
            r2(fit.stacked(predicted, j, truth), truth)
            for j, truth in enumerate(fit.scored.labels[:, list(disentangled)].T.astype(float))
        ]
    return [simex(floors[0.0][j], {step: floors[step][j] for step in SIMEX_STEPS}) for j in range(len(disentangled))]
