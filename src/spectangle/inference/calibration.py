r"""What predictions are measured against: intervals with stated coverage, and what is normal among the survey's stars.

Split-conformal intervals (Vovk et al. 2005; Lei et al. 2018, arXiv:1604.04173): with the scores
:math:`|r_i| / s_i` of n validation stars, the interval :math:`\pm q s` with q the
:math:`\lceil (n + 1) c \rceil`-th smallest score covers a new star of the same population with probability c or more,
whatever s is. Here s is a guess of how hard a star is, from its noise and its labels, fitted to training stars; the
coverage that
comes out is checked on test stars.

Distance and misfit are measured against what 99 % of the validation stars of the same S/N keep within, with noise added
down to S/N 10. There are two of all that belongs to them: for spectra with errors, and for those without.

Shapes: n stars, P pixels, K labels, Z latent, F features, L knots; S and T directions of
:class:`~spectangle.inference.misfit.Misfit`.
"""

from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spectangle.errors import SpectangleError
from spectangle.files import whole_file
from spectangle.inference.flag_limits import limit_at
from spectangle.inference.misfit import Misfit
from spectangle.inference.reading import Reading

__all__ = ["Calibration", "difficulty_features", "nearest_distance", "pixel_weight"]

PIECE = 65536


@dataclass
class Calibration:
    """Numbers of the survey's stars that a prediction is compared with.

    Arguments:
        label_range: Smallest and largest label of the training stars [2, K].
        pixel_mean: Mean flux of the training stars [P], put in place of masked pixels.
        pixel_residual: Root mean square residual of each pixel over validation stars [P].
        latent_mean, whitening: Mean [Z] and whitening matrix [Z, Z] of the training stars' latents.
        known_errors: 1 where the survey has errors, else 0 [1]: then flags do not use those that come with spectra.
        misfit_basis, misfit_whitening, misfit_variance, misfit_rest: [P, T], [2, T, S + T], [2, S + T] and [2, 2] of
            :class:`~spectangle.inference.misfit.Misfit`.
        limit_knots, limits: Log S/N [2, L], and the log of the distance and of the two misfits that 99 % of the
            validation stars keep within there [2, 3, L].
        label_limit: Distance of labels that 99 % of the validation stars keep within [1].
        label_sample: Labels of at most 4,000 training stars [m, K], in units of label_std [K].
        feature_range, difficulty: Range of the features [2, F] and coefficients of log s [K, F].
        scores, test_scores: Sorted scores of validation and test stars, each [n, K]; NaN behind those of the stars that
            have the label.
    """

    label_range: np.ndarray
    pixel_mean: np.ndarray
    pixel_residual: np.ndarray
    latent_mean: np.ndarray
    whitening: np.ndarray
    known_errors: np.ndarray
    misfit_basis: np.ndarray
    misfit_whitening: np.ndarray
    misfit_variance: np.ndarray
    misfit_rest: np.ndarray
    limit_knots: np.ndarray
    limits: np.ndarray
    label_limit: np.ndarray
    label_sample: np.ndarray
    label_std: np.ndarray
    feature_range: np.ndarray
    difficulty: np.ndarray
    scores: np.ndarray
    test_scores: np.ndarray

    def __post_init__(self):
        self.pixel_weight = pixel_weight(self.pixel_residual)
        self._centre, self._whitening = torch.from_numpy(self.latent_mean), torch.from_numpy(self.whitening)

    def distance(self, z: Tensor) -> Tensor:
        """Mahalanobis distance [n] of latents [n, Z] from the training stars."""
        return torch.linalg.vector_norm((z - self._centre) @ self._whitening, dim=1)

    @cached_property
    def misfits(self) -> tuple[Misfit, Misfit]:
        """What measures the misfit of spectra with errors, and of those without."""
        basis = torch.from_numpy(self.misfit_basis)
        arrays = (self.misfit_whitening, self.misfit_variance, self.misfit_rest)
        first, second = (Misfit(basis, *(torch.from_numpy(array[kind]) for array in arrays)) for kind in (0, 1))
        return first, second

    def quality_scores(self, reading: Reading, has_error: bool | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance and misfit [n] of stars, in units of what 99 % of normal stars of the same S/N keep within.

        Arguments:
            reading: What was read of n stars.
            has_error: Whether the spectra came with errors: all or none, or each star [n].
        """
        known = np.broadcast_to(has_error, len(reading))
        limits = [
            [limit_at(reading.level, knots, one) for one in ones]
            for knots, ones in zip(self.limit_knots, self.limits, strict=True)
        ]
        distance, *misfits = (np.where(known, one, other) for one, other in zip(*limits, strict=True))
        return reading.distance / distance, np.max(reading.misfit / np.stack(misfits, axis=1), axis=1)

    def label_distance(self, labels: np.ndarray) -> np.ndarray:
        """Distance [n] of labels [n, K] from the nearest training star, in units of what is normal: above 1, no star is
        like it.
        """
        return (nearest_distance(self.label_sample, labels / self.label_std) / self.label_limit).astype(np.float32)

    def uncertainty(self, reading: Reading, coverage: float) -> np.ndarray:
        """Half-widths [n, K] of intervals that hold the catalogue's label with probability `coverage`; infinite for
        labels that too few validation stars have.
        """
        quantile = self.quantile(coverage)
        pieces = [
            reading[start : start + PIECE] for start in range(0, len(reading), PIECE)
        ]  # the features of a million stars are large
        return np.concatenate([(quantile * self.scale(piece)).astype(np.float32) for piece in pieces])

    def quantile(self, coverage: float) -> np.ndarray:
        """The score of each label [K] that belongs to a coverage; infinite for labels that too few validation stars
        have.

        Raises:
            SpectangleError: No label has enough validation stars.
        """
        found, n = self._quantile(coverage), self.stars[0].max()
        if not 0 < coverage < 1 or np.isinf(found).all():
            raise SpectangleError(
                f"coverage={coverage:g} cannot be given with {n} validation stars; choose one between 0 and "
                f"{n / (n + 1):.3f}."
            )
        return found

    def measured_coverage(self, coverage: float) -> np.ndarray:
        """Fraction of the test stars [K] whose catalogue label lies in the interval; NaN for labels without one."""
        quantile = self._quantile(coverage)
        return np.where(np.isinf(quantile), np.nan, (self.test_scores <= quantile).sum(axis=0) / self.stars[1])

    @property
    def stars(self) -> np.ndarray:
        """How many validation and test stars have each label [2, K]."""
        return np.stack([np.isfinite(scores).sum(axis=0) for scores in (self.scores, self.test_scores)])

    def _quantile(self, coverage: float) -> np.ndarray:
        counts = self.stars[0]
        places = np.ceil((counts + 1) * coverage).astype(int)
        found = self.scores[np.clip(places, 1, len(self.scores)) - 1, np.arange(len(places))]
        return np.where(places > counts, np.inf, found)

    def save(self, path: Path) -> None:
        """Write beside the name, then rename; a folder that cannot be written is no reason to stop."""
        with suppress(OSError), whole_file(path) as part, part.open("wb") as file:
            np.savez(file, **self.arrays())  # pyright: ignore[reportArgumentType]

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def load(cls, path: Path) -> "Calibration | None":
        """Read what :meth:`save` wrote; None: another version of spectangle wrote it, which measured other numbers."""
        with np.load(path, allow_pickle=False) as file:
            if set(file.files) != {field.name for field in fields(cls)}:
                return None
            return cls(**{name: file[name] for name in file.files})

    def scale(self, reading: Reading) -> np.ndarray:
        """How hard each label of each star is taken to be [n, K]."""
        return np.exp(np.clip(difficulty_features(reading, self.label_range), *self.feature_range) @ self.difficulty.T)


def pixel_weight(pixel_residual: np.ndarray) -> Tensor:
    """What stands for 1 / error where no errors come [P], from the residuals of validation stars [P]."""
    return 1 / torch.from_numpy(pixel_residual).clamp(min=1e-6)


def difficulty_features(reading: Reading, label_range: np.ndarray) -> np.ndarray:
    """What a star's difficulty is guessed from [n, F]: its noise, the models' disagreement, its labels and their
    products.
    """
    low, high = label_range
    scaled = 2 * (reading.labels - low) / (high - low) - 1
    k = scaled.shape[1]
    products = [scaled[:, i] * scaled[:, j] for i in range(k) for j in range(i, k)]
    spread = np.log(reading.spread / (high - low) + 1e-6)
    return np.column_stack([np.ones(len(scaled)), np.log(reading.rms + 1e-6), spread, scaled, *products])


def nearest_distance(sample: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance [n] of points [n, K] from the nearest of a sample [m, K]."""
    from sklearn.neighbors import KDTree  # scipy's never ends where many values are 0 and numbers near it are flushed

    return np.asarray(KDTree(sample).query(points)[0])[:, 0]
