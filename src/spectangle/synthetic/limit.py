r"""The physical limit: how well the labels of the embedded survey's stars can be read at all, from their spectra.

Nobody can read labels better than who knows how the spectra were made. That reader is computed here. About a star's
true labels the observed spectrum is linear in the labels and in what else shapes it,

.. math:: y = f(\theta^*) + A \, (\theta - \theta^*) + N \epsilon + n, \quad \epsilon \sim \mathcal N(0, 1), \quad
  n \sim \mathcal N(0, \mathrm{diag}(\sigma^2))

with the emulator's response :math:`A` to the labels [P, K] and the nuisances :math:`N` [P, 4], each of unit scatter:
broadening (its prior depends on the labels: that is part of :math:`A`), velocity, level and tilt of the continuum.
With the nuisances marginalised, the spectrum tells of :math:`\theta - \theta^*` a Gaussian likelihood of precision
:math:`\Lambda` with its maximum, the efficient estimate, at :math:`\Lambda^{-1} s`:

.. math:: \Lambda = F_{AA} - F_{AN} (F_{NN} + 1)^{-1} F_{NA}, \quad s = b_A - F_{AN} (F_{NN} + 1)^{-1} b_N, \quad
  F_{XY} = X^T \sigma^{-2} Y, \quad b_X = X^T \sigma^{-2} r

where :math:`r` is what nuisances and noise did to this very star: the limit reads the same spectra as everybody else.
Times the population's mixture of Gaussians :math:`\sum_m w_m \mathcal N(\mu_m, S_m)`, with :math:`\mu_m` counted from
:math:`\theta^*`, it is the posterior, again a mixture (Bishop 2006, section 2.3.3):

.. math:: P_m = \Lambda + S_m^{-1}, \quad d_m = P_m^{-1} (s + S_m^{-1} \mu_m), \quad
  w'_m \propto w_m \, |S_m|^{-1/2} |P_m|^{-1/2} \exp \tfrac12 (d_m^T P_m d_m - \mu_m^T S_m^{-1} \mu_m)

Its median, which no other number beats in mean absolute error, is the limit's reading of a label.

It is a limit of this kind, not to the last digit: the emulator is not quite linear as far as the likelihood of a faint
star reaches; flux errors count as known, though their sizes follow the flux and so tell a little themselves; that no
star lies beyond the population's limits is used for each label by itself.

Shapes: N stars, P pixels, K labels, J nuisances, M components of the mixture.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from spectangle.caching import cache_folder, cache_key, cached
from spectangle.survey.file import Survey
from spectangle.synthetic.embedded import fingerprint, is_embedded
from spectangle.synthetic.emulator import default_emulator
from spectangle.synthetic.observation import LEVEL, TILT, shift_velocity
from spectangle.synthetic.population import LABELS, LIMITS, VELOCITY_SCATTER, Mixture, label_mixture, vbroad_prior

__all__ = [
    "Likelihood",
    "ObservedStars",
    "likelihood",
    "observed_stars",
    "physical_limit",
    "posterior",
    "posterior_medians",
    "star_likelihood",
    "star_nuisances",
]

BLOCK = 500  # stars at a time: their responses take 13 kB each and parameter
STEP = 0.01  # of the range of a label, for its derivative
LOG_STEP, VELOCITY_STEP = 0.05, 0.3  # of the broadening's logarithm; km/s
HALVINGS = 40  # of the range of a label: to 3e-9 K
LARGEST_MISFIT = 1.2  # chi2 per pixel that the emulator's own spectra never have

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObservedStars:
    """What is seen and what is true of N stars: flux and flux error [N, P], true labels [N, 4], broadening and velocity
    [N] in km/s.
    """

    flux: np.ndarray
    flux_error: np.ndarray
    labels: np.ndarray
    vbroad: np.ndarray
    velocity: np.ndarray

    def __len__(self) -> int:
        return len(self.flux)

    def __getitem__(self, rows: slice) -> "ObservedStars":
        return ObservedStars(
            self.flux[rows], self.flux_error[rows], self.labels[rows], self.vbroad[rows], self.velocity[rows]
        )


@dataclass(frozen=True)
class Likelihood:
    """What spectra tell of the distance from the true labels: precision [N, K, K], score [N, K]; chi2 per pixel [N]."""

    precision: np.ndarray
    score: np.ndarray
    misfit: np.ndarray


def physical_limit(path: str | Path, rows: np.ndarray, labels: Sequence[str]) -> np.ndarray | None:
    """Labels [N, K] of some stars of a survey as the best possible reader reads them; computed once and cached.

    None where nobody knows the limit: the survey is not the embedded one, its spectra are no longer the emulator's, or
    it has none of the emulator's labels. NaN for labels that the emulator does not know.

    Arguments:
        path: Survey file.
        rows: Places of the stars in it [N], ascending.
        labels: Names of the labels.
    """
    with Survey(path) as survey:
        if not set(labels) & set(LABELS) or not is_embedded(survey):
            return None
        key = cache_key("physical limit", survey.content_hash, fingerprint(), rows.tolist())
    found = cached(cache_folder() / "limits" / f"{key}.json", lambda: _limit(path, rows))
    if not found:
        log.warning(
            "%s says that it is the embedded survey, but its spectra are not those of this version's emulator; the "
            "physical limit is left out. Write the survey again to have it.",
            path,
        )
        return None
    unknown = [np.nan] * len(rows)
    return np.column_stack([found.get(name, unknown) for name in labels])


def observed_stars(path: str | Path, rows: np.ndarray) -> ObservedStars:
    """Read stars of an embedded survey by their places in it [N], ascending."""
    flux, error = [], []
    with Survey(path) as survey:
        for start, stop in survey.chunks():
            some, errors = rows[(rows >= start) & (rows < stop)] - start, survey.flux_error(start, stop)
            assert errors is not None
            flux.append(survey.flux(start, stop)[some])
            error.append(errors[some])
        return ObservedStars(
            np.concatenate(flux),
            np.concatenate(error),
            np.column_stack([survey.column(f"true_{name}")[rows] for name in LABELS]).astype(float),
            survey.column("vbroad")[rows].astype(float),
            survey.column("radial_velocity_residual")[rows].astype(float),
        )


def _limit(path: str | Path, rows: np.ndarray) -> dict[str, list[float]]:
    """The limit's labels [N] by name; empty where the emulator does not fit the spectra."""
    stars = observed_stars(path, rows)
    parts = [stars[start : start + BLOCK] for start in range(0, len(stars), BLOCK)]
    told = [star_likelihood(part) for part in parts]
    if not np.mean(np.concatenate([one.misfit for one in told])) < LARGEST_MISFIT:
        return {}
    read = [posterior_medians(one, part.labels, label_mixture()) for one, part in zip(told, parts, strict=True)]
    return dict(zip(LABELS, np.concatenate(read).T.tolist(), strict=True))


def star_likelihood(stars: ObservedStars) -> Likelihood:
    """What the spectra of stars tell of their labels, in the scaled labels of the mixture."""
    nuisance, residual = star_nuisances(stars)
    by_broadening = nuisance[:, :, 0] / vbroad_prior(stars.labels)[1][:, None]
    response = np.stack([_by_label(stars, by_broadening, k) for k in range(len(LABELS))], axis=2)
    return likelihood(response * label_mixture().scale, nuisance, residual, stars.flux_error)


def star_nuisances(stars: ObservedStars) -> tuple[np.ndarray, np.ndarray]:
    """Change of the spectra with one sigma of each nuisance [N, P, 4], broadening first, and what is seen beyond the
    spectra of these labels with every nuisance at the middle of its prior [N, P].
    """
    unmoved = default_emulator()(stars.labels, stars.vbroad)
    clean = shift_velocity(unmoved, stars.velocity).astype(float)
    median, scatter = vbroad_prior(stars.labels)
    by_broadening = _difference(
        lambda step: _spectra(stars.labels, stars.vbroad * np.exp(step), stars.velocity), LOG_STEP
    )
    by_velocity = _difference(lambda step: shift_velocity(unmoved, stars.velocity + step), VELOCITY_STEP)
    tilted = clean * np.linspace(-1.0, 1.0, clean.shape[1])
    broadened, shifted = by_broadening * scatter[:, None], by_velocity * VELOCITY_SCATTER
    residual = stars.flux - clean + by_broadening * np.log(stars.vbroad / median)[:, None]
    residual += by_velocity * stars.velocity[:, None]
    return np.stack([broadened, shifted, clean * LEVEL, tilted * TILT], axis=2), residual


def likelihood(response: np.ndarray, nuisance: np.ndarray, residual: np.ndarray, error: np.ndarray) -> Likelihood:
    """What linear spectra tell of the labels when nuisances of unit scatter and noise are marginalised.

    Arguments:
        response, nuisance [N, P, K], [N, P, J]: Change of the flux with labels and nuisances.
        residual [N, P]: What nuisances and noise did; NaN: a pixel that tells nothing.
        error [N, P]: One sigma of the noise.
    """
    known, count = np.isfinite(residual), response.shape[2]
    weight = np.where(known, 1.0 / error, 0.0)
    whitened = np.where(known, residual, 0.0) * weight
    design = np.concatenate([response, nuisance], axis=2) * weight[:, :, None]
    fisher = np.swapaxes(design, 1, 2) @ design
    score = np.einsum("npk,np->nk", design, whitened)
    prior = fisher[:, count:, count:] + np.eye(nuisance.shape[2])
    gain = np.swapaxes(np.linalg.solve(prior, fisher[:, count:, :count]), 1, 2)
    every = fisher + np.diag([0.0] * count + [1.0] * nuisance.shape[2])
    explained = np.einsum("nk,nk->n", score, np.einsum("nkl,nl->nk", np.linalg.pinv(every), score))
    return Likelihood(
        fisher[:, :count, :count] - gain @ fisher[:, count:, :count],
        score[:, :count] - np.einsum("nkj,nj->nk", gain, score[:, count:]),
        (np.square(whitened).sum(1) - explained) / np.maximum(1, known.sum(1)),
    )


def posterior_medians(told: Likelihood, truth: np.ndarray, mixture: Mixture) -> np.ndarray:
    """Median of each label [N, K] under likelihood and mixture, inside the mixture's limits.

    Arguments:
        told: In the scaled labels of the mixture.
        truth: Labels [N, K] about which the likelihood was taken.
        mixture: Prior of the labels.
    """
    scaled = (truth - mixture.shift) / mixture.scale
    weights, means, covariances = posterior(told, scaled, mixture)
    variances = np.einsum("nmkk->nmk", covariances)
    low, high = ((mixture.limits.T - mixture.shift) / mixture.scale)[:, None, :, None]
    place, spread = (means + scaled[:, None]).transpose(0, 2, 1), np.sqrt(variances).transpose(0, 2, 1)  # [N, K, M]

    def below(x: np.ndarray) -> np.ndarray:
        return np.sum(weights[:, None] * ndtr((x - place) / spread), axis=2, keepdims=True)

    left, right = (np.broadcast_to(end, (*scaled.shape, 1)) for end in (low, high))
    half = 0.5 * (below(left) + below(right))
    for _ in range(HALVINGS):
        middle = 0.5 * (left + right)
        smaller = below(middle) < half
        left, right = np.where(smaller, middle, left), np.where(smaller, right, middle)
    return mixture.shift + mixture.scale * (0.5 * (left + right))[:, :, 0]


def posterior(told: Likelihood, truth: np.ndarray, mixture: Mixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [N, M], means [N, M, K] and covariances [N, M, K, K] of the distance from the truth, a mixture of
    Gaussians like the prior, in its scaled labels; truth [N, K] is scaled too.
    """
    inverse = np.linalg.inv(mixture.covariances)
    prior_mean = mixture.means - truth[:, None]
    precision = told.precision[:, None] + inverse
    pull = told.score[:, None] + np.einsum("mkl,nml->nmk", inverse, prior_mean)
    covariance = np.linalg.inv(precision)
    mean = np.einsum("nmkl,nml->nmk", covariance, pull)
    logarithm = np.log(mixture.weights) + 0.5 * (
        np.linalg.slogdet(inverse)[1]
        - np.linalg.slogdet(precision)[1]
        + np.einsum("nmk,nmk->nm", mean, pull)
        - np.einsum("nmk,mkl,nml->nm", prior_mean, inverse, prior_mean)
    )
    weights = np.exp(logarithm - logarithm.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True), mean, covariance


def _spectra(labels: np.ndarray, vbroad: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    return shift_velocity(default_emulator()(labels, vbroad), velocity).astype(float)


def _by_label(stars: ObservedStars, by_broadening: np.ndarray, k: int) -> np.ndarray:
    """Change of the spectra [N, P] with label k, along which the usual broadening changes too."""
    low, high = LIMITS[k]
    step = STEP * (high - low)
    inside = np.clip(stars.labels[:, k], low + step, high - step)

    def at(step: float) -> np.ndarray:
        labels = stars.labels.copy()
        labels[:, k] = inside + step
        return labels

    along = _difference(lambda step: np.log(vbroad_prior(at(step))[0]), step)
    return _difference(lambda step: _spectra(at(step), stars.vbroad, stars.velocity), step) + (
        by_broadening * along[:, None]
    )


def _difference(function: Callable[[float], np.ndarray], step: float) -> np.ndarray:
    return (function(step) - function(-step)) / (2.0 * step)
