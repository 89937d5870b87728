"""What stands for labels that some stars lack: what a small network reads of them in the spectrum.

As q(y|x) of Kingma et al. 2014 (arXiv:1406.5298): with a mean in their place, the latent would have to say what these
labels say, also of a label that it is to lose.

Shapes: B batch, N stars, P pixels, K labels, M of which are incomplete.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spectangle.model.losses import at_least_single, star_shares
from spectangle.model.networks import mlp

__all__ = ["LabelEstimator", "ridge_filled"]

WIDTH = 128
RIDGE = 1e-3  # of the number of stars


class LabelEstimator(torch.nn.Sequential):
    """Read M scaled labels [B, M] in scaled spectra [B, P].

    Arguments:
        n_pixels: P.
        n_labels: M.
    """

    def __init__(self, n_pixels: int, n_labels: int):
        super().__init__(*mlp([n_pixels, WIDTH, n_labels]))

    def loss(self, spectra: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
        """Squared error of what is read of scaled labels [B, M] where they are known [B, M], by the weights of the
        stars [B, M]; summed over labels.
        """
        error = (at_least_single(self(spectra)) - labels).square()
        return (error.T * star_shares(known.T, weights.T)).sum()


def ridge_filled(spectra: Tensor, labels: Tensor, columns: Sequence[int]) -> Tensor:
    """Labels [N, K] with ridge regression on scaled spectra [N, P] where one of some columns is missing: what the
    estimator will read, before it has learnt it.
    """
    filled = labels.clone()
    for i in columns:
        known = torch.isfinite(labels[:, i])
        inputs, mean = spectra[known] - spectra[known].mean(0), labels[known, i].mean()
        gram = inputs.T @ inputs + RIDGE * len(inputs) * torch.eye(spectra.shape[1])
        weights = torch.linalg.solve(gram, inputs.T @ (labels[known, i] - mean))
        filled[~known, i] = mean + (spectra[~known] - spectra[known].mean(0)) @ weights
    return filled
