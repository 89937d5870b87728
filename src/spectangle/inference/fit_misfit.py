"""Learn from training stars how residuals of normal stars are distributed, and where spoilt ones differ.

Shapes: n stars, P pixels, S directions of spoilt stars, T directions in all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from sklearn.utils.extmath import randomized_svd

from spectangle.inference.misfit import estimated_noise
from spectangle.inference.spoilt_stars import noise_levels, noisier, spoilt_stars
from spectangle.inference.trained_networks import TrainedNetworks

__all__ = ["NoisyStars", "fit_misfit"]

DIRECTIONS = 16  # of spoilt stars, and as many of the model's errors
EXAMPLES = 1000  # stars that are spoilt


@dataclass
class NoisyStars:
    """Stars of a survey as it has them: source_id [n], flux and its error [n, P]; NaN = masked pixel."""

    source_id: np.ndarray
    flux: np.ndarray
    error: np.ndarray

    @property
    def level(self) -> np.ndarray:
        """S/N of the continuum [n]: root mean square of 1 / error over the usable pixels."""
        good = np.isfinite(self.flux) & (self.error > 0)
        weight = np.divide(1, self.error, out=np.zeros_like(self.error), where=good)
        return np.sqrt(np.square(weight).sum(axis=1) / np.maximum(good.sum(axis=1), 1))

    def __getitem__(self, rows: np.ndarray) -> "NoisyStars":
        return NoisyStars(self.source_id[rows], self.flux[rows], self.error[rows])

    def at_all_levels(self, seed: int = 0) -> Iterator["NoisyStars"]:
        """The stars as they are, then those that are good enough with noise added, level by level."""
        yield self
        random, level = np.random.default_rng(seed), self.level
        for target in noise_levels(level):
            better = np.flatnonzero(level > target)
            part = self[better]
            yield NoisyStars(part.source_id, *noisier(part.flux, part.error, level[better], target, random))


def fit_misfit(
    model: TrainedNetworks, stars: NoisyStars, pixel_weight: torch.Tensor, known_errors: bool
) -> dict[str, np.ndarray]:
    """The numbers of :class:`~spectangle.inference.misfit.Misfit`, with the stars' errors and without them.

    Arguments:
        model: The networks.
        stars: Training stars.
        pixel_weight: What stands for 1 / error where no errors come [P].
        known_errors: Whether the stars' errors are the survey's own.
    """
    basis, n_spoilt = _basis(model, stars, None if known_errors else pixel_weight)

    def whiten(weight: torch.Tensor | None) -> tuple[np.ndarray, ...]:
        return _whiten([_projected(model, part, basis, weight) for part in stars.at_all_levels(seed=1)], n_spoilt)

    estimated = whiten(pixel_weight)
    both = zip(whiten(None) if known_errors else estimated, estimated, strict=True)
    whitening, variance, rest = (np.stack(values).astype(np.float32) for values in both)
    return {
        "misfit_basis": basis,
        "misfit_whitening": whitening,
        "misfit_variance": variance,
        "misfit_rest": rest,
    }


def _basis(model: TrainedNetworks, stars: NoisyStars, pixel_weight: torch.Tensor | None) -> tuple[np.ndarray, int]:
    """Directions [P, T] and how many of them are of spoilt stars: these first, then the model's largest errors."""
    best = stars[np.argsort(-stars.level)[: min(EXAMPLES, max(len(stars.flux) // 4, 200))]]
    filled = np.where(np.isfinite(best.flux), best.flux, model.fill.numpy())
    weighted, level, _ = _weighted(model, best, pixel_weight)
    unit = 1 / np.maximum(level, 1e-6)[:, None]
    responses = []
    for flux in spoilt_stars(filled, np.random.default_rng(0)):
        flux = np.where(np.isfinite(best.flux), flux, np.nan).astype(np.float32)
        spoilt, _, _ = _weighted(model, NoisyStars(best.source_id, flux, best.error), pixel_weight, level)
        response = (spoilt - weighted) * unit
        responses.append(response / np.sqrt(np.square(response).sum()))
    count = max(1, min(DIRECTIONS, stars.flux.shape[1] // 4, len(best.flux) // 4))
    spoilt = _principal(np.concatenate(responses), count)
    errors = weighted / np.sqrt(np.square(weighted).sum(axis=1, keepdims=True))  # no star counts more than another
    return np.ascontiguousarray(np.hstack([spoilt, _principal(errors - errors @ spoilt @ spoilt.T, count)])), count


def _principal(rows: np.ndarray, count: int) -> np.ndarray:
    return randomized_svd(rows, count, random_state=0)[2].T.astype(np.float32)


@torch.inference_mode()
def _weighted(
    model: TrainedNetworks, stars: NoisyStars, pixel_weight: torch.Tensor | None, level: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals over their errors [n, P], S/N [n] and usable pixels [n]; with `pixel_weight`, errors are estimated from
    the residuals, unless the S/N is given.
    """
    good = np.isfinite(stars.flux) & (stars.error > 0)
    flux = torch.from_numpy(np.where(good, stars.flux, model.fill.numpy()).astype(np.float32))
    noise = model.network.draws(stars.source_id, len(flux))
    pieces = [
        model.fast(flux[i : i + 1024], None if noise is None else noise[i : i + 1024])[2].clone()
        for i in range(0, len(flux), 1024)
    ]
    residual, count = torch.cat(pieces) * torch.from_numpy(good), torch.from_numpy(good.sum(axis=1)).clamp(min=1)
    if pixel_weight is None:
        weight = torch.from_numpy(np.divide(1, stars.error, out=np.zeros_like(stars.error), where=good))
        found = torch.linalg.vector_norm(weight, dim=1) / count.sqrt()
        return (residual * weight).numpy(), found.numpy(), count.numpy()
    residual *= pixel_weight
    flat = pixel_weight.square().mean().sqrt()
    sigma = estimated_noise(residual, count) if level is None else flat / torch.from_numpy(level)
    return (residual / sigma[:, None]).numpy(), (flat / sigma).numpy(), count.numpy()


def _projected(
    model: TrainedNetworks, stars: NoisyStars, basis: np.ndarray, pixel_weight: torch.Tensor | None
) -> tuple[np.ndarray, ...]:
    """Projections on the directions [n, T], chi2 [n], S/N [n] and usable pixels [n]."""
    weighted, level, count = _weighted(model, stars, pixel_weight)
    return weighted @ basis, np.square(weighted).sum(axis=1), level, count


def _whiten(parts: list[tuple[np.ndarray, ...]], n_spoilt: int) -> tuple[np.ndarray, ...]:
    """Whitening [T, S + T], variance [S + T] and the rest [2] from projections of stars at all levels of noise."""
    projected, chi2, level, count = (np.concatenate(values).astype(np.float64) for values in zip(*parts, strict=True))
    t = projected.shape[1]
    power = np.square(level)
    # an ill-fitting star counts the less the worse it fits: tails are the limits' business
    split = _split(power, 1 / np.square(np.maximum(chi2 / count, 0.1)))
    few, many = (_diagonal(projected[:, :k], split) for k in (n_spoilt, t))
    whitening = np.zeros((t, n_spoilt + t))
    whitening[:n_spoilt, :n_spoilt], whitening[:, n_spoilt:] = few[0], many[0]
    outside = (chi2 - np.square(projected).sum(axis=1)) / np.maximum(count - t, 1)
    rest = split @ outside
    return whitening, np.concatenate([few[1], many[1]]), np.array([max(rest[0], 0.05), max(rest[1], 0.0)])


def _split(power: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights [2, n] of squares of stars, whose sums are the part that noise makes and the part that grows with g^2."""
    design = np.stack([np.ones_like(power), power])
    return np.linalg.pinv((design * weight) @ design.T) @ (design * weight)


def _diagonal(projected: np.ndarray, split: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matrix [k, k] after which noise has variance 1 and the model's errors are uncorrelated, and their variance
    [k].
    """
    noise, errors = ((projected * part[:, None]).T @ projected for part in split)
    variance, axes = np.linalg.eigh(noise)
    noise = (axes * np.maximum(variance, 0.05)) @ axes.T
    variance, axes = eigh((errors + errors.T) / 2, (noise + noise.T) / 2)
    return axes, np.maximum(variance, 0.0)
