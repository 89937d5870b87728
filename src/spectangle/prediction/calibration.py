r"""What predictions are measured against: intervals with stated coverage, and what is normal among the survey's stars.

Split-conformal intervals (Vovk et al. 2005; Lei et al. 2018, arXiv:1604.04173): with the scores
:math:`|r_i| / s_i` of n validation stars, the interval :math:`\pm q s` with q the
:math:`\lceil (n + 1) c \rceil`-th smallest score covers a new star of the same population with probability c or more, whatever
s is. Here s is a guess of how hard a star is, from its noise and its labels, fitted to training stars; the coverage that
comes out is checked on test stars.

Shapes: n stars, P pixels, K labels, Z latent, F features.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spectangle.errors import SpectangleError
from spectangle.outputs import whole_file
from spectangle.prediction.reading import Reading, read_spectra

if TYPE_CHECKING:
    from spectangle.data import SpectraDataModule, Stars
    from spectangle.trained import TrainedModel

__all__ = ["Calibration", "calibrate"]

PIECE = 65536
NORMAL = 0.99  # of the validation stars lie within the limits of distance and chi2


@dataclass
class Calibration:
    """Numbers of the survey's stars that a prediction is compared with.

    Arguments:
        label_range: Smallest and largest label of the training stars [2, K].
        pixel_mean: Mean flux of the training stars [P], put in place of masked pixels.
        pixel_residual: Root mean square residual of each pixel over validation stars [P].
        latent_mean, whitening: Mean [Z] and whitening matrix [Z, Z] of the training stars' latents.
        limits: Distance, chi2 with errors, chi2 without, and distance of labels that 99 % of the validation stars keep within [4].
        label_sample: Labels of at most 4,000 training stars [m, K], in units of label_std [K].
        feature_range, difficulty: Range of the features [2, F] and coefficients of log s [K, F].
        scores, test_scores: Sorted scores of validation and test stars, each [n, K].
    """

    label_range: np.ndarray
    pixel_mean: np.ndarray
    pixel_residual: np.ndarray
    latent_mean: np.ndarray
    whitening: np.ndarray
    limits: np.ndarray
    label_sample: np.ndarray
    label_std: np.ndarray
    feature_range: np.ndarray
    difficulty: np.ndarray
    scores: np.ndarray
    test_scores: np.ndarray

    def __post_init__(self):
        self.pixel_weight = 1 / torch.from_numpy(self.pixel_residual).clamp(min=1e-6)
        self._centre, self._whitening = torch.from_numpy(self.latent_mean), torch.from_numpy(self.whitening)

    def distance(self, z: Tensor) -> Tensor:
        """Mahalanobis distance [n] of latents [n, Z] from the training stars."""
        return torch.linalg.vector_norm((z - self._centre) @ self._whitening, dim=1)

    def label_distance(self, labels: np.ndarray) -> np.ndarray:
        """Distance [n] of labels [n, K] from the nearest training star, in units of what is normal: above 1, no star is like it."""
        return (_nearest(self.label_sample, labels / self.label_std) / self.limits[3]).astype(np.float32)

    def uncertainty(self, reading: Reading, coverage: float) -> np.ndarray:
        """Half-widths [n, K] of intervals that hold the catalogue's label with probability `coverage`."""
        quantile = self.quantile(coverage)
        pieces = [reading[start : start + PIECE] for start in range(0, len(reading), PIECE)]  # the features of a million stars are large
        return np.concatenate([(quantile * self._scale(piece)).astype(np.float32) for piece in pieces])

    def quantile(self, coverage: float) -> np.ndarray:
        """The score of each label [K] that belongs to a coverage."""
        n = len(self.scores)
        place = int(np.ceil((n + 1) * coverage))
        if not 0 < coverage < 1 or place > n:
            raise SpectangleError(f"coverage={coverage:g} cannot be given with {n} validation stars; choose one between 0 and {n / (n + 1):.3f}.")
        return self.scores[place - 1]

    def measured_coverage(self, coverage: float) -> np.ndarray:
        """Fraction of the test stars [K] whose catalogue label lies in the interval."""
        return (self.test_scores <= self.quantile(coverage)).mean(axis=0)

    def save(self, path: Path) -> None:
        """Write beside the name, then rename; a folder that cannot be written is no reason to stop."""
        with suppress(OSError), whole_file(path) as part, part.open("wb") as file:
            np.savez(file, **self.arrays())  # pyright: ignore[reportArgumentType]

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        with np.load(path, allow_pickle=False) as file:
            return cls(**{field.name: file[field.name] for field in fields(cls)})

    def _scale(self, reading: Reading) -> np.ndarray:
        return np.exp(np.clip(_features(reading, self.label_range), *self.feature_range) @ self.difficulty.T)


def calibrate(models: Sequence["TrainedModel"], data: "SpectraDataModule") -> Calibration:
    """Measure what is normal for a model, or for an ensemble, from the stars that it was trained on and the held-out ones."""
    labels, latents = data.train.labels.numpy(), models[0].network.embed_stars(data.train)
    values = {
        "label_range": np.stack([labels.min(0), labels.max(0)]),
        "pixel_mean": data.train.flux.mean(0).numpy(),
        "pixel_residual": _pixel_residual(models[0], data.validation),
        "latent_mean": latents.mean(0),
        "whitening": _whitening(latents),
    }
    n, k = len(data.validation), len(data.labels)
    std = labels.std(0)
    values |= {"label_std": std, "label_sample": labels[np.random.default_rng(0).permutation(len(labels))[:4000]] / std}
    empty = {"feature_range": np.zeros((2, 1)), "difficulty": np.zeros((k, 1)), "scores": np.zeros((n, k)), "test_scores": np.zeros((1, k))}
    known = Calibration(**values, limits=np.ones(4), **empty)
    models = [model.with_calibration(known if i == 0 else model.calibration) for i, model in enumerate(models)]
    train, validation, test = (_read(models, stars) for stars in (data.train, data.validation, data.test))
    values["limits"] = np.array(
        [
            np.quantile(validation.distance, NORMAL),
            _chi2_with_errors(models, data),
            np.quantile(validation.chi2, NORMAL),
            np.quantile(_nearest(values["label_sample"], data.validation.labels.numpy() / std), NORMAL),
        ]
    )
    features = _features(train, known.label_range)
    known.feature_range = np.quantile(features, [0.001, 0.999], axis=0)
    known.difficulty = _fit_difficulty(np.clip(features, *known.feature_range), np.abs(train.labels - labels))
    scores = [np.sort(np.abs(r.labels - s.labels.numpy()) / known._scale(r), axis=0) for r, s in ((validation, data.validation), (test, data.test))]
    return Calibration(**values, feature_range=known.feature_range, difficulty=known.difficulty, scores=scores[0], test_scores=scores[1])


def _features(reading: Reading, label_range: np.ndarray) -> np.ndarray:
    """What a star's difficulty is guessed from [n, F]: its noise, the models' disagreement, its labels and their products."""
    low, high = label_range
    scaled = 2 * (reading.labels - low) / (high - low) - 1
    k = scaled.shape[1]
    products = [scaled[:, i] * scaled[:, j] for i in range(k) for j in range(i, k)]
    spread = np.log(reading.spread / (high - low) + 1e-6)
    return np.column_stack([np.ones(len(scaled)), np.log(reading.rms + 1e-6), spread, scaled, *products])


def _fit_difficulty(features: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Least-squares coefficients [K, F] of log |residual|, slightly damped: an unused feature stays at zero."""
    target = np.log(residual + 1e-3 * residual.mean(axis=0))
    damping = 1e-3 * len(features) * np.eye(features.shape[1])
    return np.linalg.solve(features.T @ features + damping, features.T @ target).T


def _nearest(sample: np.ndarray, points: np.ndarray) -> np.ndarray:
    from scipy.spatial import KDTree

    return np.asarray(KDTree(sample).query(points)[0])


def _whitening(latents: np.ndarray) -> np.ndarray:
    """Matrix [Z, Z] that turns the latents' covariance into 1; a direction without variance counts little, not infinitely."""
    variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(latents.T)))
    return (axes / np.sqrt(np.maximum(variance, 1e-6 * variance.max()))).astype(np.float32)


def _read(models: Sequence["TrainedModel"], stars: "Stars", error: np.ndarray | None = None) -> Reading:
    """Read stars of the survey as a prediction does: the latent of each is its own draw."""
    return read_spectra(models, stars.flux.numpy(), error, stars.source_id)


@torch.inference_mode()
def _pixel_residual(model: "TrainedModel", stars: "Stars") -> np.ndarray:
    z = torch.from_numpy(model.network.embed_stars(stars))
    return (model.network.decode(z, model.readout(z)) - stars.flux).square().mean(0).sqrt().numpy()


def _chi2_with_errors(models: Sequence["TrainedModel"], data: "SpectraDataModule") -> float:
    """The limit of chi2 with the survey's own errors; infinite where it has none."""
    from spectangle.survey import Survey

    with Survey(data.path or "") as survey:
        if not survey.has_flux_error:
            return float("inf")
        rows = data.validation.rows
        error = np.concatenate([np.asarray(survey.flux_error(a, b))[rows[(rows >= a) & (rows < b)] - a] for a, b in survey.chunks()])
    return float(np.quantile(_read(models, data.validation, error).chi2, NORMAL))
