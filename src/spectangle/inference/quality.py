"""The quality flag word of a predicted star: which bits there are and when they are set.

Shapes: n stars, K labels.
"""

from dataclasses import dataclass
from enum import IntFlag

import numpy as np

__all__ = ["Limits", "Quality", "quality"]


class Quality(IntFlag):
    """Bits of the column ``flags``; 0 means that nothing was found wrong."""

    NO_DATA = 1
    LOW_SNR = 2
    MASKED = 4
    OUTSIDE_LABELS = 8
    OUT_OF_DISTRIBUTION = 16
    POOR_RECONSTRUCTION = 32

    @classmethod
    def legend(cls) -> str:
        """All bits with their meanings, in one line."""
        return "; ".join(f"{bit.value} = {MEANING[bit]}" for bit in cls)


MEANING = {
    Quality.NO_DATA: "no usable pixel",
    Quality.LOW_SNR: "S/N below the limit",
    Quality.MASKED: "too many masked pixels",
    Quality.OUTSIDE_LABELS: "a label outside the range of the training stars",
    Quality.OUT_OF_DISTRIBUTION: "far from the training stars in latent space",
    Quality.POOR_RECONSTRUCTION: "poor reconstruction",
}


@dataclass(frozen=True)
class Limits:
    """Where the bits are set.

    Arguments:
        min_snr: S/N per pixel; spectra without errors have no S/N and never this bit.
        max_masked: Fraction of masked pixels (training left out stars above 0.2).
        max_ood: Distance in units of the one that 99 % of normal stars of the same S/N keep within.
        max_misfit: Misfit of the reconstruction in units of the one that 99 % of normal stars of the same S/N keep
            within.
    """

    min_snr: float = 15.0
    max_masked: float = 0.2
    max_ood: float = 1.0
    max_misfit: float = 1.0


def quality(
    limits: Limits,
    snr: np.ndarray,
    masked: np.ndarray,
    labels: np.ndarray,
    label_range: np.ndarray,
    ood: np.ndarray,
    misfit: np.ndarray,
) -> np.ndarray:
    """Flag words [n] int32. What is not finite sets its bit, but for stars without a usable pixel, where all is NaN.

    Arguments:
        limits: Where the bits are set.
        snr, masked, ood, misfit: One value per star [n], ood and misfit in units of the normal stars' 99 %.
        labels: Predicted labels [n, K].
        label_range: Smallest and largest label of the training stars [2, K].
    """
    (low, high), some = label_range, masked < 1
    with np.errstate(invalid="ignore"):  # a comparison with NaN is false
        conditions = {
            Quality.NO_DATA: ~some,
            Quality.LOW_SNR: (snr < limits.min_snr) | np.isinf(snr),  # NaN: no errors came
            Quality.MASKED: masked > limits.max_masked,
            Quality.OUTSIDE_LABELS: some & ~((labels >= low) & (labels <= high)).all(axis=1),
            Quality.OUT_OF_DISTRIBUTION: some & ~(ood <= limits.max_ood),
            Quality.POOR_RECONSTRUCTION: some & ~(misfit <= limits.max_misfit),
        }
    words = np.zeros(len(snr), dtype=np.int32)
    for bit, where in conditions.items():
        words[where] |= bit.value
    return words
