"""What the encoder reads of a spectrum: few directions that tell of the labels, in place of every pixel.

Shapes: N stars, P pixels, L label values, C components.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from spectangle.model.losses import at_least_single

__all__ = ["Projection"]

BLOCK = 8192  # stars at a time
SMALLEST_SCATTER = 1e-6  # of the largest: a component with less is rounding
SMALLEST_REST = 1e-5  # of a spectrum's squared distance from the mean: less is rounding


class Projection(nn.Module):
    r"""Coordinates of scaled spectra along C fixed directions, each with the scatter 1 over the training stars.

    Most of what several hundred pixels say of a star is noise, which an encoder of some hundred thousand weights learns
    by heart. The directions are those of partial least squares (Wold et al. 1984, doi:10.1137/0905052), which labels
    decide on, and the principal components of what these leave, which the reconstruction needs. They are fitted once,
    to training stars, and do not learn.

    How much of a spectrum they leave is mostly its noise: with ``noise_level``, its logarithm is one output more, and
    the encoder knows how far to trust the others. Nobody has to tell it.

    Arguments:
        n_pixels: P.
        pls: PLS components.
        pca: Principal components.
        passed: Inputs behind the pixels that are passed on as they are (labels, of a conditional encoder).
        noise_level: Whether to say how much of the spectrum the components leave, if they leave anything.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    spread: Tensor
    rest_moments: Tensor

    def __init__(self, n_pixels: int, pls: int, pca: int, passed: int = 0, noise_level: bool = False):
        super().__init__()
        self.n_pixels = n_pixels
        self.pls = min(pls, n_pixels)
        self.pca = min(pca, n_pixels - self.pls)
        n_linear = self.pls + self.pca + passed
        self.noise_level = noise_level and self.pls + self.pca < n_pixels
        self.n_outputs = n_linear + self.noise_level
        self.register_buffer("weight", torch.eye(n_linear, n_pixels + passed))
        self.register_buffer("bias", torch.zeros(n_linear))
        if self.noise_level:
            self.register_buffer("mean", torch.zeros(n_pixels))
            self.register_buffer("spread", torch.ones(self.pls + self.pca))
            self.register_buffer("rest_moments", torch.tensor([0.0, 1.0]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Components, what is passed on and the noise level [B, C + passed (+ 1)], of inputs [B, P + passed]."""
        if not self.noise_level:
            return functional.linear(inputs, self.weight, self.bias)
        with torch.autocast(inputs.device.type, enabled=False):  # the rest is a small difference of large numbers
            inputs = at_least_single(inputs)
            linear = functional.linear(inputs, self.weight, self.bias)
            return self.with_noise_level(inputs[:, : self.n_pixels], linear)

    def with_noise_level(self, spectra: Tensor, linear: Tensor) -> Tensor:
        """Components of spectra [B, P] and what is passed on, ``linear`` [B, C + passed], and the noise level behind
        them.
        """
        mean, deviation = self.rest_moments
        return torch.cat([linear, (self._rest(spectra, linear) - mean) / deviation], dim=1)

    def _rest(self, spectra: Tensor, linear: Tensor) -> Tensor:
        """Logarithm [B, 1] of the squared flux that the components, first of ``linear``, leave of spectra [B, P]."""
        explained, centred = linear[:, : self.pls + self.pca] * self.spread, spectra - self.mean
        whole = (centred * centred).sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        rest = whole - (explained * explained).sum(1, keepdim=True)  # products, not powers, which old ONNX lacks
        return torch.maximum(rest, SMALLEST_REST * whole).log()

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
        passed = len(self.weight) - len(weight)
        self.weight.copy_(torch.block_diag(torch.from_numpy(weight), torch.eye(passed, dtype=torch.float64)))
        self.bias[: len(weight)] = torch.from_numpy(-weight @ mean[:p])
        if self.noise_level:
            self.mean.copy_(torch.from_numpy(mean[:p]))
            self.spread.copy_(torch.from_numpy(spread))
            own, bias = self.weight[: len(weight), :p], self.bias[: len(weight)]
            rest = torch.cat([self._rest(x, functional.linear(x, own, bias)) for x in spectra.split(BLOCK)])
            self.rest_moments.copy_(torch.stack([rest.mean(), rest.std().clamp(min=SMALLEST_SCATTER)]))


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
