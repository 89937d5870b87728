r"""How ill a reconstruction fits, on a scale that noise does not move: residuals whitened by what noise and model
leave.

The residual of a normal star, in units of its flux errors, has the covariance :math:`B + g^2 A`: noise as encoder and
decoder pass it on, and the model's own errors, which are the larger the less noise there is; g is the S/N of the
continuum. It is known in T directions, in which both are diagonal, and is isotropic in all others. Two sums of squares
follow: over the directions in which spoilt stars differ from normal ones (few, so that a weak pattern shows), and over
all.

Shapes: B stars, P pixels, S directions of spoilt stars, T directions in all.
"""

import torch
from torch import Tensor

from spectangle.inference.fast_networks import FastLayers

__all__ = ["Misfit", "estimated_noise"]


class Misfit:
    """Sums of squares of whitened residuals.

    Arguments:
        basis: Orthonormal directions [P, T], those of spoilt stars first.
        whitening: Turns projections on the first S, and on all T directions, into ones that have variance 1 from noise
            [T, S + T].
        variance: What the model's errors add to each, for g = 1 [S + T].
        rest: Variance of a pixel outside the T directions from noise, and what the model's errors add for g = 1 [2].
    """

    def __init__(self, basis: Tensor, whitening: Tensor, variance: Tensor, rest: Tensor):
        self.project = FastLayers([(basis.T, torch.zeros(basis.shape[1]))])
        self.whitening, self.variance, self.rest = whitening, variance, rest
        self.spoilt = whitening.shape[1] - whitening.shape[0]

    def __call__(self, weighted: Tensor, chi2: Tensor, level: Tensor, count: Tensor) -> Tensor:
        """Both sums [B, 2], the second per pixel.

        Arguments:
            weighted: Residuals over their errors [B, P], 0 where masked.
            chi2: Their sums of squares [B].
            level: g [B].
            count: Usable pixels [B].
        """
        projected, power = self.project(weighted), level.square()
        squares = (projected @ self.whitening).square() / torch.addcmul(torch.ones(()), power[:, None], self.variance)
        outside = (chi2 - projected.square().sum(1)) / (self.rest[0] + self.rest[1] * power)
        return torch.stack(
            [squares[:, : self.spoilt].sum(1), (squares[:, self.spoilt :].sum(1) + outside) / count], dim=1
        )


def estimated_noise(weighted: Tensor, count: Tensor) -> Tensor:
    """Noise [B] of residuals [B, P] from their fourth differences, which lines of two pixels or more hardly touch.

    Arguments:
        weighted: Residuals in any unit, 0 where masked.
        count: Usable pixels [B].
    """
    differences = torch.diff(weighted, n=4, dim=1) if weighted.shape[1] > 4 else weighted
    gain = 70.0 if weighted.shape[1] > 4 else 1.0  # 1 + 16 + 36 + 16 + 1
    return (torch.linalg.vector_norm(differences, dim=1).square() / (gain * count)).sqrt().clamp(min=1e-6)
