"""What the encoder reads of a spectrum: few directions that tell of the labels, in place of every pixel.

Shapes: N stars, P pixels, L label values, C components.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Projection"]

BLOCK = 8192  # stars at a time
SMALLEST_SCATTER = 1e-6  # of the largest: a component with less is rounding


class Projection(nn.Module):
    r"""Coordinates of scaled spectra along C fixed directions, each with the scatter 1 over the training stars.

    Most of what several hundred pixels say of a star is noise, which an encoder of some hundred thousand weights learns
    by heart. The directions are those of partial least squares (Wold et al. 1984, doi:10.1137/0905052), which labels
    decide on, and the principal components of what these leave, which the reconstruction needs. They are fitted once,
    to training stars, and do not learn.

    Arguments:
        n_pixels: P.
        pls: PLS components.
        pca: Principal components.
        passed: Inputs behind the pixels that are passed on as they are (labels, of a conditional encoder).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, n_pixels: int, pls: int, pca: int, passed: int = 0):
        super().__init__()
        self.n_pixels = n_pixels
        self.pls = min(pls, n_pixels)
        self.pca = min(pca, n_pixels - self.pls)
        self.n_outputs = self.pls + self.pca + passed
        self.register_buffer("weight", torch.eye(self.n_outputs, n_pixels + passed))
        self.register_buffer("bias", torch.zeros(self.n_outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Components, then what is passed on [B, C + passed], of inputs [B, P + passed]."""
        return functional.linear(inputs, self.weight, self.bias)

    def fit(self, spectra: Tensor, labels: Tensor) -> None:
        """Fit to scaled training spectra [N, P] and labels [N, L] without gaps."""
        mean, scatter = _moments(spectra, labels)
        p = self.n_pixels
        directions = _pls_directions(scatter, p, self.pls)
        own = scatter[:p, :p]
        rest = np.eye(p) - directions @ directions.T
        directions = np.hstack([directions, np.linalg.eigh(rest @ own @ rest)[1][:, ::-1][:, : self.pca]])
        spread = np.sqrt(np.einsum("pc,pq,qc->c", directions, own, directions, optimize=True).clip(min=0.0))
        weight = np.where(spread > SMALLEST_SCATTER * spread.max(), directions / spread.clip(min=1e-300), 0.0).T
        passed = self.n_outputs - len(weight)
        self.weight.copy_(torch.block_diag(torch.from_numpy(weight), torch.eye(passed, dtype=torch.float64)))
        self.bias[: len(weight)] = torch.from_numpy(-weight @ mean[:p])


def _moments(spectra: Tensor, labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean [P + L] and covariance [P + L, P + L] of spectra [N, P] and labels [N, L]."""
    n = spectra.shape[1] + labels.shape[1]
    mean, square = torch.zeros(n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    for x, y in zip(spectra.split(BLOCK), labels.split(BLOCK), strict=True):
        part = torch.cat([x, y], dim=1).double()
        mean += part.sum(0) / len(spectra)
        square += part.T @ part / len(spectra)
    return mean.numpy(), (square - torch.outer(mean, mean)).numpy()


def _pls_directions(covariance: np.ndarray, n_pixels: int, count: int) -> np.ndarray:
    """Orthonormal basis [P, count] of the first PLS components.

    PLS knows the stars by their covariance alone, so that it is fitted to 2 (P + L) made-up stars of mean 0 that have
    it, in place of a survey.
    """
    from sklearn.cross_decomposition import PLSRegression

    if not count:
        return np.empty((n_pixels, 0))
    variance, axes = np.linalg.eigh(covariance)
    half = np.sqrt(variance.clip(min=0.0))[:, None] * axes.T
    stars = np.vstack([half, -half])
    fitted = PLSRegression(count, scale=False).fit(stars[:, :n_pixels], stars[:, n_pixels:])
    return np.linalg.qr(fitted.x_weights_)[0]
