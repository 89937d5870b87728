r"""Who is in the survey: labels, magnitude, signal-to-noise ratio, rotation and velocity residual of each star.

Labels follow ``tables/label_mixture.json``: a Gaussian mixture fitted to 3,904 APOGEE DR16 stars that RAVE observed
(Guiglion et al. 2020, A&A 644, A168), cut to its limits.

Shapes: N stars, 4 labels in the order of :data:`LABELS`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files

import numpy as np

__all__ = ["LABELS", "LABEL_UNITS", "LIMITS", "Population", "draw_labels", "draw_population"]

LABEL_UNITS = {"teff": "K", "logg": "dex", "m_h": "dex", "alpha_fe": "dex"}
LABELS = tuple(LABEL_UNITS)
LabelsLike = Mapping[str, np.ndarray] | np.ndarray

BRIGHT, FAINT = 8.0, 14.0  # G magnitude, the cut of the paper (section 3.1)
COUNTS_SLOPE = 0.2  # d log10 N / dG: a disc population seen through the selection of the catalogues
SNR_AT_TEN, READ_NOISE, VISITS_SCATTER = 120.0, 0.04, 0.2
FASTEST = 60.0  # km/s
VELOCITY_SCATTER = 1.5  # km/s, of the radial velocity that was taken out
CATALOGUE_ERRORS = (50.0, 0.07, 0.035, 0.025)  # of the labels, typical of APOGEE DR17 and GALAH DR3
ERROR_SCATTER = 0.25  # from star to star, of the logarithm
HEALPIX_LOW, HEALPIX_HIGH = 29_103_831, 201_326_592  # level-12 pixels whose Gaia ids have 19 digits


@dataclass(frozen=True)
class Mixture:
    """Hold a Gaussian mixture in scaled labels: weights [M], means [M, 4], covariances [M, 4, 4]."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    limits: np.ndarray

    def sample(self, count: int, rng: np.random.Generator, widen: float = 1.0) -> np.ndarray:
        """Draw labels [count, 4] inside the limits; ``widen`` stretches every component about its mean."""
        kept = np.empty((0, len(self.shift)))
        while len(kept) < count:
            drawn = self._unbounded(2 * count, rng, widen)
            inside = (drawn >= self.limits[:, 0]) & (drawn <= self.limits[:, 1])
            kept = np.concatenate([kept, drawn[inside.all(1)]])
        return kept[:count]

    def _unbounded(self, count: int, rng: np.random.Generator, widen: float) -> np.ndarray:
        component = rng.choice(len(self.weights), count, p=self.weights)
        factors = np.linalg.cholesky(self.covariances)[component]
        scaled = self.means[component] + widen * np.einsum("nij,nj->ni", factors, rng.standard_normal((count, 4)))
        return self.shift + self.scale * scaled


@lru_cache
def label_mixture() -> Mixture:
    """Read the mixture of the package."""
    text = (files("spectangle.synthetic") / "tables" / "label_mixture.json").read_text(encoding="utf-8")
    found = json.loads(text)
    weights = np.array(found["weights"])
    return Mixture(
        weights / weights.sum(),
        np.array(found["means"]),
        np.array(found["covariances"]),
        np.array(found["mean"]),
        np.array(found["scale"]),
        np.array([found["limits"][name] for name in LABELS], float),
    )


LIMITS = label_mixture().limits  # [4, 2]


@dataclass(frozen=True)
class Population:
    """Hold what is true of N stars and what a catalogue says of them.

    Attributes:
        source_id [N]: int64, unique, laid out as Gaia's: a sky pixel in the high bits, a running number in the low
            ones.
        labels, catalogue, label_errors [N, 4]: True labels; labels with catalogue errors added; those errors (one
            sigma).
        magnitude, snr, vbroad, velocity [N]: G; signal-to-noise ratio per pixel; rotation and macroturbulence, and
            residual radial velocity, in km/s.
    """

    source_id: np.ndarray
    labels: np.ndarray
    catalogue: np.ndarray
    label_errors: np.ndarray
    magnitude: np.ndarray
    snr: np.ndarray
    vbroad: np.ndarray
    velocity: np.ndarray

    def head(self, count: int) -> "Population":
        """Return the first stars."""
        return Population(*(getattr(self, field.name)[:count] for field in fields(self)))


def draw_population(count: int, rng: np.random.Generator, first: int = 0) -> Population:
    """Draw stars; ``first`` is the running number of the first one and keeps ids unique between draws."""
    labels, magnitude = draw_labels(count, rng), draw_magnitude(count, rng)
    errors = draw_label_errors(count, rng)
    return Population(
        source_id=draw_source_id(count, rng, first),
        labels=labels,
        catalogue=labels + errors * rng.standard_normal(errors.shape),
        label_errors=errors,
        magnitude=magnitude,
        snr=draw_snr(magnitude, rng),
        vbroad=draw_vbroad(labels, rng),
        velocity=VELOCITY_SCATTER * rng.standard_normal(count),
    )


def draw_labels(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw true labels [count, 4] from the mixture."""
    return label_mixture().sample(count, rng)


def draw_magnitude(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw G magnitudes [count] between 8 and 14 with counts that rise exponentially."""
    bright, faint = 10 ** (COUNTS_SLOPE * BRIGHT), 10 ** (COUNTS_SLOPE * FAINT)
    return np.log10(bright + rng.random(count) * (faint - bright)) / COUNTS_SLOPE


def draw_snr(magnitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    r"""Draw signal-to-noise ratios [N]: photon noise of bright, read noise of faint stars, and the number of visits.

    .. math:: S/N = 120 \, s / \sqrt{s + 0.04}, \quad s = 10^{-0.4 (G - 10)}
    """
    signal = 10 ** (-0.4 * (magnitude - 10.0))
    return (
        SNR_AT_TEN * signal / np.sqrt(signal + READ_NOISE) * np.exp(VISITS_SCATTER * rng.standard_normal(len(signal)))
    )


def vbroad_prior(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median [N] of rotation and macroturbulence in km/s, and the scatter [N] of its logarithm, for labels
    [N, 4]: 4-6 in cool stars and giants, faster in dwarfs above 6,400 K.

    The rise follows the Kraft break (Kraft 1967, ApJ 150, 551).
    """
    teff, logg = labels[:, 0], labels[:, 1]
    dwarf = 1.0 / (1.0 + np.exp(-(logg - 3.5) / 0.1))
    hot = 1.0 / (1.0 + np.exp(-(teff - 6600.0) / 150.0))
    return 5.5 - 1.5 * dwarf + 18.0 * hot * dwarf, 0.25 + 0.2 * hot


def draw_vbroad(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw rotation and macroturbulence [N] in km/s from :func:`vbroad_prior`, cut to 1-60."""
    median, scatter = vbroad_prior(labels)
    return np.clip(median * np.exp(scatter * rng.standard_normal(len(labels))), 1.0, FASTEST)


def draw_label_errors(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the one-sigma catalogue errors [count, 4], scattered about their typical sizes."""
    return np.array(CATALOGUE_ERRORS) * np.exp(ERROR_SCATTER * rng.standard_normal((count, 1)))


def draw_source_id(count: int, rng: np.random.Generator, first: int) -> np.ndarray:
    """Draw 19-digit identifiers [count] int64; the running number in the low bits makes them unique."""
    pixel = rng.integers(HEALPIX_LOW, HEALPIX_HIGH, count, dtype=np.int64)
    return (pixel << 35) | np.arange(first, first + count, dtype=np.int64)
