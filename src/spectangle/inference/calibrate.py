"""Measure what predictions are compared with, from the stars that a model was trained on and those that were held out.

Shapes: n stars, P pixels, K labels, Z latent, F features.
"""

from collections.abc import Sequence

import numpy as np
import torch

from spectangle.data.module import SpectraDataModule
from spectangle.data.stars import Stars
from spectangle.inference.calibration import Calibration, difficulty_features, nearest_distance, pixel_weight
from spectangle.inference.fit_misfit import NoisyStars, fit_misfit
from spectangle.inference.flag_limits import NORMAL, limit_at, limit_by_level, limit_knots, normal_quantile
from spectangle.inference.read import read_spectra
from spectangle.inference.reading import Reading, join
from spectangle.inference.trained_networks import TrainedNetworks
from spectangle.survey.file import Survey

__all__ = ["calibrate"]

TRAINING, VALIDATION = 5_000, 20_000  # stars at most that misfits are fitted to, and that limits are measured on


@torch.inference_mode()
def calibrate(models: Sequence[TrainedNetworks], data: SpectraDataModule) -> Calibration:
    """Measure what is normal for a model, or for an ensemble, from the stars that it was trained on and the held-out
    ones.
    """
    validation_stars, training_stars, known_errors = _with_noise(data)
    values = _seen_in_training(models[0], data) | {"known_errors": np.array([int(known_errors)])}
    values |= fit_misfit(models[0], training_stars, pixel_weight(values["pixel_residual"]), known_errors)
    known = Calibration(**values, **_unmeasured(data))
    models = [model.with_calibration(known if i == 0 else model.calibration) for i, model in enumerate(models)]
    both = [_limits(models, validation_stars, with_errors) for with_errors in (True, False)]
    knots, limits = (np.stack(arrays) for arrays in zip(*both, strict=True))
    train, validation, test = (_read(models, stars) for stars in (data.train, data.validation, data.test))
    features = difficulty_features(train, known.label_range)
    known.feature_range = np.quantile(features, [0.001, 0.999], axis=0)
    residual = np.abs(train.labels - data.train.labels.numpy())
    known.difficulty = _fit_difficulty(np.clip(features, *known.feature_range), residual)
    return Calibration(
        **values,
        limit_knots=knots,
        limits=limits,
        feature_range=known.feature_range,
        difficulty=known.difficulty,
        scores=_scores(known, validation, data.validation),
        test_scores=_scores(known, test, data.test),
    )


def _seen_in_training(model: TrainedNetworks, data: SpectraDataModule) -> dict[str, np.ndarray]:
    """Where the spectra, labels and latents of the training stars lie, and how far from them validation stars do."""
    catalogue, latents = data.train.labels.numpy(), model.network.embed_stars(data.train)
    labels = model.known_labels(data.train)
    std = labels.std(0)
    sample = labels[np.random.default_rng(0).permutation(len(labels))[:4000]] / std
    nearest = nearest_distance(sample, model.known_labels(data.validation) / std)
    return {
        "label_range": np.stack([np.nanmin(catalogue, axis=0), np.nanmax(catalogue, axis=0)]),
        "pixel_mean": data.train.flux.mean(0).numpy(),
        "pixel_residual": _pixel_residual(model, data.validation),
        "latent_mean": latents.mean(0),
        "whitening": _whitening(latents),
        "label_std": std,
        "label_sample": sample,
        "label_limit": np.maximum(np.quantile(nearest, [NORMAL]), _half_step(sample)),
    }


def _half_step(sample: np.ndarray) -> float:
    """Distance that labels [m, K] on a grid leave between its nodes: what lies there is not beyond the stars."""
    values = [np.unique(own) for own in sample.T]
    return 0.5 * float(np.linalg.norm([np.median(np.diff(own)) if len(own) > 1 else 0.0 for own in values]))


def _unmeasured(data: SpectraDataModule) -> dict[str, np.ndarray]:
    """What stands for the parts of a calibration that are measured with the others."""
    n, k = len(data.validation), len(data.labels)
    return {
        "limit_knots": np.zeros((2, 1)),
        "limits": np.zeros((2, 3, 1)),
        "feature_range": np.zeros((2, 1)),
        "difficulty": np.zeros((k, 1)),
        "scores": np.zeros((n, k)),
        "test_scores": np.zeros((1, k)),
    }


def _scores(known: Calibration, reading: Reading, stars: Stars) -> np.ndarray:
    """Residuals [n, K] in units of what is expected of them, sorted."""
    return np.sort(np.abs(reading.labels - stars.labels.numpy()) / known.scale(reading), axis=0)


def _fit_difficulty(features: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Least-squares coefficients [K, F] of log |residual| [n, K] (NaN: unknown), slightly damped: an unused feature
    stays at zero.
    """
    found = []
    for own in residual.T:
        known = np.isfinite(own)
        x, target = features[known], np.log(own[known] + 1e-3 * own[known].mean())
        found.append(np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(x.shape[1]), x.T @ target))
    return np.stack(found)


def _whitening(latents: np.ndarray) -> np.ndarray:
    """Matrix [Z, Z] that turns the latents' covariance into 1; a direction without variance counts little, not
    infinitely.
    """
    variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(latents.T)))
    return (axes / np.sqrt(np.maximum(variance, 1e-6 * variance.max()))).astype(np.float32)


def _read(models: Sequence[TrainedNetworks], stars: Stars) -> Reading:
    """Read stars of the survey as a prediction does: the latent of each is its own draw."""
    return read_spectra(models, stars.flux.numpy(), None, stars.source_id)


@torch.inference_mode()
def _pixel_residual(model: TrainedNetworks, stars: Stars) -> np.ndarray:
    z = torch.from_numpy(model.network.embed_stars(stars))
    return (model.network.decode(z, model.readout(z)) - stars.flux).square().mean(0).sqrt().numpy()


def _with_noise(data: SpectraDataModule) -> tuple[NoisyStars, NoisyStars, bool]:
    """Validation and training stars as a prediction reads them, and whether they have errors that can be used."""
    parts = ((data.validation, VALIDATION), (data.train, TRAINING))
    with Survey(data.path or "") as survey:
        validation, training = (_noisy_stars(survey, *part, survey.has_flux_error) for part in parts)
        known_errors = survey.has_flux_error and len(validation.flux) > 0 and len(training.flux) > 0
        if survey.has_flux_error and not known_errors:  # all are NaN, infinite or not above 0
            validation, training = (_noisy_stars(survey, *part, with_errors=False) for part in parts)
    return validation, training, known_errors


def _noisy_stars(survey: Survey, stars: Stars, most: int, with_errors: bool) -> NoisyStars:
    """At most so many of the stars as a prediction reads them, with their errors, or what stands for these; with errors
    only those stars that have one they could be weighted by.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(len(stars))[:most])
    rows, flux, error = stars.rows[chosen], [], []
    for start, stop in survey.chunks():
        wanted = rows[(rows >= start) & (rows < stop)] - start
        if len(wanted):
            flux.append(survey.flux(start, stop)[wanted])
            error.append(np.asarray(survey.flux_error(start, stop))[wanted] if with_errors else None)
    flux = np.concatenate(flux)
    if with_errors:
        noisy = NoisyStars(stars.source_id[chosen], flux, np.concatenate(error))
        usable = np.isfinite(noisy.flux) & np.isfinite(noisy.error) & (noisy.error > 0)
        return noisy[np.flatnonzero(usable.any(axis=1))]
    noise = np.broadcast_to(stars.noise.numpy()[chosen, None], flux.shape)
    return NoisyStars(stars.source_id[chosen], flux, np.maximum(noise, 1e-6))


def _limits(models: Sequence[TrainedNetworks], stars: NoisyStars, with_errors: bool) -> tuple[np.ndarray, np.ndarray]:
    """Knots [L] and limits [3, L] of distance and misfits, from stars at all levels of noise."""
    readings = [
        read_spectra(models, part.flux, part.error if with_errors else None, part.source_id)
        for part in stars.at_all_levels()
    ]
    own, *_ = readings = [reading[np.isfinite(reading.level)] for reading in readings]
    reading = join(readings)
    level, knots = reading.level, limit_knots(reading.level)

    def limit(score: np.ndarray) -> np.ndarray:
        """Added noise hides what fits ill: 99 % of the stars as they are must keep within the limits as well."""
        limits, first = limit_by_level(level, score, knots), slice(len(own))
        excess = normal_quantile(np.log(score[first] / limit_at(level[first], knots, limits)))
        return limits + max(excess, 0.0)

    distance, *misfits = (limit(score) for score in (reading.distance, *reading.misfit.T))
    ratios = [score / limit_at(level, knots, one) for score, one in zip(reading.misfit.T, misfits, strict=True)]
    both = limit(np.maximum(*ratios))  # either exceeds its limit more often than one
    return knots, np.stack([distance, *(one + both for one in misfits)])
