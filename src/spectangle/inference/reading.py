"""What a trained model reads of stars.

Shapes: n stars, K labels, Z latent.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

__all__ = ["Reading", "join"]


@dataclass
class Reading:
    """What was read of n stars.

    Arguments:
        labels: Mean of the models' labels [n, K], in their units.
        spread: Standard deviation over the models [n, K]; 0 for one model.
        latent: z of the first model [n, Z]; of a stochastic latent, the draw that belongs to each star.
        distance: Mahalanobis distance from the training stars' latents [n], mean of the models.
        rms: Root mean square residual of the reconstruction [n], flux units.
        chi2: Mean squared residual over its error [n] per usable pixel.
        misfit: Sums of squares of the whitened residual [n, 2] of :class:`~spectangle.inference.misfit.Misfit`.
        level: S/N of the continuum [n] that distance and misfit are judged by: root mean square of 1 / error, or what
            the residual tells of the noise.
        snr: Mean of flux over error [n]; NaN without errors.
        masked: Fraction of pixels that are not usable [n].
    """

    labels: np.ndarray
    spread: np.ndarray
    latent: np.ndarray
    distance: np.ndarray
    rms: np.ndarray
    chi2: np.ndarray
    misfit: np.ndarray
    level: np.ndarray
    snr: np.ndarray
    masked: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | np.ndarray) -> "Reading":
        """Some of the stars."""
        return Reading(*(getattr(self, field.name)[rows] for field in fields(self)))


def join(readings: Iterable[Reading]) -> Reading:
    """Put readings of chunks of stars together."""
    readings = list(readings)
    return Reading(
        *(np.concatenate([getattr(reading, field.name) for reading in readings]) for field in fields(Reading))
    )
