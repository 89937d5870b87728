"""Cross-fitted probes: labels of stars that neither the encoder nor the probe was fitted on.

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
from spectangle.survey.star_draws import star_uniform

__all__ = ["FEWEST_STARS", "CrossFit", "Measured", "Predictions", "fitted_predictions", "stacked"]

Predictions = dict[str, np.ndarray]
FOLD_STREAM = 3
FEWEST_STARS = 10  # that something can be learnt from, and that an excess is measured on


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
        folds: Parts of the scored stars, by a hash of their ids; of fewer stars, a part for each.
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
        self.folds = min(folds, len(place))
        self.fold = np.argsort(np.argsort(place)) * self.folds // max(1, len(place))  # parts of equal size

    def predictions(self, features: Any, targets: Any, folds: Sequence[int] | None = None) -> Predictions:
        """Predictions [S, D] of each probe and set of fitting stars, from features(Measured) [N, F] for
        targets(Measured) [N, D]; NaN for stars of other folds where ``folds`` names some.
        """
        x, y = features(self.scored), targets(self.scored)
        out = {name: np.full(y.shape, np.nan) for name in self.probes}
        out |= {f"{name}/with_seen": np.full(y.shape, np.nan) for name in self.probes if self.small}
        helds = [self.fold == fold for fold in (range(self.folds) if folds is None else folds)]
        helds = [held for held in helds if held.any()]  # stars that lack a label may leave a part empty
        for suffix in ("", "/with_seen")[: 2 if self.small else 1]:
            sets = [self._fitted_on(held, bool(suffix)) for held in helds]
            fit_x, fit_y = (
                [np.concatenate([take(part) for part in parts]) for parts in sets] for take in (features, targets)
            )
            found = fitted_predictions(self.probes, fit_x, fit_y, [x[held] for held in helds])
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
        fit.fold, fit.folds = self.fold[rows[1]], self.folds
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
    if len(groups) == 1 and all(np.isfinite(part).all() and len(part) >= FEWEST_STARS for part in y):
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
