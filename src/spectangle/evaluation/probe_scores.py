"""What probes found, as numbers: R2 of labels, balanced accuracy of attributes, controls, floors and excesses.

Shapes: N stars, Z latent, K labels, C classes.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spectangle.evaluation.cross_fit import CrossFit, Measured, Predictions, stacked
from spectangle.evaluation.leakage import FloorOf, bootstrap_r2, leaks, population_floor
from spectangle.metrics import balanced_accuracy, r2

if TYPE_CHECKING:
    from spectangle.data.module import SpectraDataModule
    from spectangle.data.stars import Stars

__all__ = [
    "attribute_scores",
    "control_scores",
    "excess_scores",
    "label_scores",
    "labels_of",
    "latent_of",
    "measured",
    "spectra_scores",
    "target_columns",
]

log = logging.getLogger(__name__)

CONTROL_FOLDS = (0, 1)  # of many stars: some thousand show that permuted labels cannot be read


def target_columns(data: "SpectraDataModule") -> dict[str, list[int]]:
    """Columns of :func:`measured` by label and attribute: one of a label, one for each class of an attribute."""
    columns, start = {name: [i] for i, name in enumerate(data.labels)}, len(data.labels)
    for name, classes in data.classes.items():
        columns[name] = list(range(start, start + len(classes)))
        start += len(classes)
    return columns


def measured(stars: "Stars", z: np.ndarray, data: "SpectraDataModule") -> Measured:
    """What probes need of some stars, with their latents [N, Z]; classes of attributes follow the labels, 1 or 0."""
    labels, errors, truth = [stars.labels.numpy()], [stars.label_errors], [stars.true_labels]
    for a, words in enumerate(data.classes.values()):
        code = stars.attributes[:, a].numpy()[:, None]
        is_class = np.where(np.isnan(code), np.nan, code == np.arange(len(words))).astype(np.float32)
        labels, errors, truth = [*labels, is_class], [*errors, 0 * is_class], [*truth, is_class]
    return Measured(stars.source_id, z, *(np.concatenate(parts, axis=1) for parts in (labels, errors, truth)))


def label_scores(
    prefix: str,
    labels: Sequence[str],
    fit: CrossFit,
    candidates: Predictions,
    trained: Predictions,
    bootstrap: int,
    seed: int,
) -> dict[str, float]:
    """R2 of each label: of each probe, of all of them stacked with its interval, of the best fitted on seen stars.

    Arguments:
        prefix: Of the metrics.
        labels: Those of the first columns; attributes come behind.
        fit: The stars and their folds.
        candidates, trained: What probes read of the scored stars, fitted on unseen and on seen stars; the run's
            regressor is one of the latter. All are stacked: none was fitted on the stars that it reads here.
        bootstrap, seed: Resamples of the scored stars.
    """
    scores: dict[str, float] = {}
    for i, label in enumerate(labels):
        path, truth = f"{prefix}probe/{label}", fit.scored.labels[:, i].astype(np.float64)
        each = {name: r2(prediction[:, i], truth) for name, prediction in (candidates | trained).items()}
        best = fit.stacked(candidates | trained, i, truth)
        regressor = trained.get("regressor/seen")
        if regressor is not None and each["regressor/seen"] > r2(best, truth):
            best = regressor[:, i]
        draws = bootstrap_r2([best], truth, bootstrap, seed)[0]
        scores |= {f"{path}/{name}/r2": value for name, value in each.items()}
        scores |= {
            f"{path}/stars": np.isfinite(truth).sum(),
            f"{path}/r2": r2(best, truth),
            f"{path}/r2_low": np.nanquantile(draws, 0.025),
            f"{path}/r2_high": np.nanquantile(draws, 0.975),
        }
        if seen := [value for name, value in each.items() if name.endswith("/seen")]:
            scores[f"{path}/seen"] = max(seen)
    return scores


def control_scores(
    prefix: str, labels: Sequence[str], fit: CrossFit, candidates: Predictions, seed: int
) -> dict[str, float]:
    """R2 of each label when the strongest probe is fitted and scored on labels that were permuted among the unseen
    stars: about 0.
    """
    truths = fit.scored.labels.astype(np.float64)
    strongest = max(
        fit.probes, key=lambda name: sum(r2(p, t) for p, t in zip(candidates[name].T, truths.T, strict=True))
    )
    random = np.random.default_rng(seed)
    shuffled = [_permuted(part, random) for part in (fit.seen, fit.scored, fit.spare)]
    probe = {strongest: fit.probes[strongest]}
    permuted = CrossFit(probe, *shuffled, small=fit.small, folds=fit.folds)  # pyright: ignore[reportArgumentType]
    folds = range(fit.folds) if fit.small else CONTROL_FOLDS
    found = permuted.predictions(latent_of, labels_of, folds)
    rows = np.isin(permuted.fold, folds)
    truths, fold = permuted.scored.labels[rows].astype(np.float64), permuted.fold[rows]
    parts = [prediction[rows] for prediction in found.values()]
    scores = {}
    for i, label in enumerate(labels):  # attributes come behind
        best = stacked([part[:, i] for part in parts], truths[:, i], fold)
        scores[f"{prefix}probe/{label}/control"] = r2(best, truths[:, i])
    return scores


def attribute_scores(
    path: str, fit: CrossFit, candidates: Predictions, columns: Sequence[int], bootstrap: int, seed: int
) -> dict[str, float]:
    """Balanced accuracy of the classes of an attribute, from the probes' predictions of each class."""
    truth, found = _classes_read(fit, candidates, columns)
    random = np.random.default_rng(seed)
    draws = [
        balanced_accuracy(truth[rows], found[rows], len(columns))
        for rows in (random.integers(len(truth), size=len(truth)) for _ in range(bootstrap))
    ]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return {
        f"{path}/balanced_accuracy": balanced_accuracy(truth, found, len(columns)),
        f"{path}/balanced_accuracy_low": low,
        f"{path}/balanced_accuracy_high": high,
        f"{path}/chance": 1 / len(columns),
        f"{path}/stars": len(truth),
    }


def excess_scores(
    prefix: str,
    fit: CrossFit,
    z_only: Predictions,
    entangled: list[int],
    disentangled: Mapping[str, Sequence[int]],
    bootstrap: int,
    seed: int,
    floor_of: FloorOf = population_floor,
) -> dict[str, float]:
    """Floors and excesses of disentangled labels and attributes, each with its columns."""
    columns = [column for own in disentangled.values() for column in own]
    found = leaks(fit, z_only, entangled, columns, bootstrap, seed, floor_of)
    scores: dict[str, float] = {}
    for name, own in disentangled.items():
        measured_ones = [found[column] for column in own if column in found]
        if not measured_ones:
            log.warning("warning: no excess of %s: too few of the scored stars have it and all kept labels.", name)
            continue
        leak = max(measured_ones, key=lambda one: one.excess)
        scores |= {
            f"{prefix}excess_stars/{name}": leak.stars,
            f"{prefix}floor/{name}": leak.floor,
            f"{prefix}floor_decoder/{name}": leak.decoder,
            f"{prefix}excess/{name}": leak.excess,
        }
        scores |= {f"{prefix}excess_low/{name}": leak.low, f"{prefix}excess_high/{name}": leak.high}
    if found:
        scores[f"{prefix}largest_excess"] = max(leak.excess for leak in found.values())
        scores[f"{prefix}excess_is_upper_bound"] = float(any(leak.upper_bound for leak in found.values()))
    return scores


def spectra_scores(fit: CrossFit, candidates: Predictions, data: "SpectraDataModule") -> dict[str, float]:
    """By name, R2 of each label and balanced accuracy of each attribute that the probes read from raw spectra."""
    truths, places = fit.scored.labels.astype(np.float64), target_columns(data)
    found = {label: r2(fit.stacked(candidates, i, truths[:, i]), truths[:, i]) for i, label in enumerate(data.labels)}
    for name in data.attributes:
        found[name] = balanced_accuracy(*_classes_read(fit, candidates, places[name]), len(places[name]))
    return found


def _classes_read(fit: CrossFit, candidates: Predictions, columns: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Classes of the stars that have one [n], and those that the probes read: where a class is likelier than usual
    among the stars of the other folds (its share in a star's own fold is what a constant prediction is wrong about).
    """
    truth = fit.scored.labels[:, list(columns)].astype(np.float64)
    known = np.isfinite(truth[:, 0])
    likely = np.stack([fit.stacked(candidates, i, own) for i, own in zip(columns, truth.T, strict=True)], axis=1)
    for fold in np.unique(fit.fold):
        shares = truth[known & (fit.fold != fold)].mean(axis=0)
        likely[fit.fold == fold] /= shares.clip(min=1e-9)
    return truth[known].argmax(axis=1), (likely[known] - 1e-6 * np.arange(len(columns))).argmax(axis=1)


def latent_of(stars: Measured) -> np.ndarray:
    return stars.z


def labels_of(stars: Measured) -> np.ndarray:
    return stars.labels


def _permuted(stars: Measured | None, random: np.random.Generator) -> Measured | None:
    if stars is None:
        return None
    order = random.permutation(len(stars))
    return Measured(stars.source_id, stars.z, stars.labels[order], stars.label_errors[order], stars.true_labels[order])
