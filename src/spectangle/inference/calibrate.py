"""Measure what predictions are compared with, from the stars that a model was trained on and those that were held out.

Shapes: n stars, P pixels, K labels, Z latent, F features.
"""

from collections.abc import Sequence

import numpy as np
import torch

from spectangle.data.module import SpectraDataModule
from spectangle.data.stars import Stars
from spectangle.inference.calibration import Calibration, difficulty_features, nearest_distance
from spectangle.inference.read import read_spectra
from spectangle.inference.reading import Reading
from spectangle.inference.trained_networks import TrainedNetworks
from spectangle.survey.file import Survey

__all__ = ["calibrate"]

NORMAL = 0.99  # of the validation stars lie within the limits of distance and chi2


@torch.inference_mode()
def calibrate(models: Sequence[TrainedNetworks], data: SpectraDataModule) -> Calibration:
    """Measure what is normal for a model, or for an ensemble, from the stars that it was trained on and the held-out
    ones.
    """
    catalogue, latents = data.train.labels.numpy(), models[0].network.embed_stars(data.train)
    labels = _filled(catalogue, models[0].readout(torch.from_numpy(latents)).numpy())
    values = {
        "label_range": np.stack([np.nanmin(catalogue, axis=0), np.nanmax(catalogue, axis=0)]),
        "pixel_mean": data.train.flux.mean(0).numpy(),
        "pixel_residual": _pixel_residual(models[0], data.validation),
        "latent_mean": latents.mean(0),
        "whitening": _whitening(latents),
    }
    n, k = len(data.validation), len(data.labels)
    std = labels.std(0)
    values |= {"label_std": std, "label_sample": labels[np.random.default_rng(0).permutation(len(labels))[:4000]] / std}
    empty = {
        "feature_range": np.zeros((2, 1)),
        "difficulty": np.zeros((k, 1)),
        "scores": np.zeros((n, k)),
        "test_scores": np.zeros((1, k)),
    }
    known = Calibration(**values, limits=np.ones(4), **empty)
    models = [model.with_calibration(known if i == 0 else model.calibration) for i, model in enumerate(models)]
    train, validation, test = (_read(models, stars) for stars in (data.train, data.validation, data.test))
    values["limits"] = np.array(
        [
            np.quantile(validation.distance, NORMAL),
            _chi2_with_errors(models, data),
            np.quantile(validation.chi2, NORMAL),
            np.quantile(
                nearest_distance(
                    values["label_sample"], _filled(data.validation.labels.numpy(), validation.labels) / std
                ),
                NORMAL,
            ),
        ]
    )
    features = difficulty_features(train, known.label_range)
    known.feature_range = np.quantile(features, [0.001, 0.999], axis=0)
    known.difficulty = _fit_difficulty(np.clip(features, *known.feature_range), np.abs(train.labels - catalogue))
    scores = [
        np.sort(np.abs(r.labels - s.labels.numpy()) / known.scale(r), axis=0)
        for r, s in ((validation, data.validation), (test, data.test))
    ]
    return Calibration(
        **values,
        feature_range=known.feature_range,
        difficulty=known.difficulty,
        scores=scores[0],
        test_scores=scores[1],
    )


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


def _filled(catalogue: np.ndarray, read: np.ndarray) -> np.ndarray:
    """Labels [n, K] of the catalogue; what the model reads where it has none."""
    return np.where(np.isfinite(catalogue), catalogue, read)


def _whitening(latents: np.ndarray) -> np.ndarray:
    """Matrix [Z, Z] that turns the latents' covariance into 1; a direction without variance counts little, not
    infinitely.
    """
    variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(latents.T)))
    return (axes / np.sqrt(np.maximum(variance, 1e-6 * variance.max()))).astype(np.float32)


def _read(models: Sequence[TrainedNetworks], stars: Stars, error: np.ndarray | None = None) -> Reading:
    """Read stars of the survey as a prediction does: the latent of each is its own draw."""
    return read_spectra(models, stars.flux.numpy(), error, stars.source_id)


@torch.inference_mode()
def _pixel_residual(model: TrainedNetworks, stars: Stars) -> np.ndarray:
    z = torch.from_numpy(model.network.embed_stars(stars))
    return (model.network.decode(z, model.readout(z)) - stars.flux).square().mean(0).sqrt().numpy()


def _chi2_with_errors(models: Sequence[TrainedNetworks], data: SpectraDataModule) -> float:
    """The limit of chi2 with the survey's own errors; infinite where it has none."""
    with Survey(data.path or "") as survey:
        if not survey.has_flux_error:
            return float("inf")
        rows = data.validation.rows
        error = np.concatenate(
            [np.asarray(survey.flux_error(a, b))[rows[(rows >= a) & (rows < b)] - a] for a, b in survey.chunks()]
        )
    return float(np.quantile(_read(models, data.validation, error).chi2, NORMAL))
