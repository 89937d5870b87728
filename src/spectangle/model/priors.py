r"""What a discriminator can know without the latent: the share of each bin, among all stars or given the kept labels.

Shapes: N stars, B batch, D labels, C bins, M cells.
"""

import numpy as np
import torch
from torch import Tensor, nn

from spectangle.model.losses import cross_entropy

__all__ = ["BinPriors"]

STARS_PER_CELL, MOST_CELLS = 60, 400


class BinPriors(nn.Module):
    r"""Share :math:`\pi_c` of each bin, in cells of the kept labels (k-means) for the discriminators that see them.

    A discriminator that sees the kept labels is at chance when it knows what they imply, not when it knows nothing: the
    entropy of the bins, which is its chance level otherwise, would be too high.

    Arguments:
        shares: Share of each bin among all training stars [D, C].
        conditional: Discriminators that also see the kept labels, D truth values.
    """

    shares: Tensor
    cells: Tensor
    conditional: Tensor

    def __init__(self, shares: Tensor, conditional: list[bool]):
        super().__init__()
        self.register_buffer("shares", shares[None].clone(), persistent=False)
        self.register_buffer("cells", torch.zeros(1, 0), persistent=False)
        self.register_buffer("conditional", torch.tensor(conditional), persistent=False)

    def fit(self, entangled: Tensor, bins: Tensor) -> "BinPriors":
        """Fit cells and shares to scaled kept labels [N, k] and bins [N, D] of training stars, -1 where a label is
        missing.
        """
        from sklearn.cluster import KMeans

        if not self.conditional.any():
            return self
        drawn = np.random.default_rng(0).permutation(len(entangled))[:20000]
        distinct = len(torch.unique(entangled[drawn], dim=0))
        n_cells = int(np.clip(len(entangled) // STARS_PER_CELL, 1, min(MOST_CELLS, distinct)))
        self.cells = torch.from_numpy(
            KMeans(n_cells, n_init="auto", random_state=0).fit(entangled[drawn].numpy()).cluster_centers_
        ).float()
        everyone, cell = self.shares[0], self._cell(entangled)
        counts = torch.zeros(n_cells, *everyone.shape)
        for d in range(len(everyone)):
            known = bins[:, d] >= 0
            counts[:, d].index_put_((cell[known], bins[known, d]), torch.tensor(1.0), accumulate=True)
        smoothed = (counts + everyone) / (counts + everyone).sum(-1, keepdim=True)  # one star drawn from everyone
        self.shares = torch.where(self.conditional[:, None], smoothed, everyone)
        return self

    def forward(self, entangled: Tensor) -> Tensor:
        """Share of each bin for each star [D, B, C] of scaled kept labels [B, k]."""
        if len(self.shares) == 1:
            return self.shares[0][:, None].expand(-1, len(entangled), -1)
        return self.shares[self._cell(entangled)].transpose(0, 1)

    def chance(self, entangled: Tensor, bins: Tensor, loss: str) -> Tensor:
        """Loss of discriminators that know the shares and nothing else [D], on stars [N, k], bins [N, D]; for
        conditional ones each star is left out of its own cell, and where cells of few stars tell less than all stars
        together do, it is what these tell."""
        shares = self(entangled)
        known = shares.clamp(min=1e-12)
        everyone = cross_entropy(known.log(), bins.T, loss)
        if not self.conditional.any():
            return everyone
        cell, known = self._cell(entangled), (bins >= 0).T
        size = torch.stack([torch.bincount(cell[own], minlength=len(self.cells))[cell] for own in known])[..., None]
        own = nn.functional.one_hot(bins.T.clamp(min=0), shares.shape[-1])
        left_out = (shares * (size + 1) - own) / size.clamp(min=1)
        conditional = cross_entropy(left_out.clamp(min=1e-6).log(), bins.T, loss)
        of_all = (own * known[..., None]).sum(1, keepdim=True) / known.sum(1).clamp(min=1)[:, None, None]
        without = cross_entropy(of_all.clamp(min=1e-12).log().expand_as(shares), bins.T, loss)
        return torch.where(self.conditional, torch.minimum(conditional, without), everyone)

    def _cell(self, entangled: Tensor) -> Tensor:
        return torch.cdist(entangled.to(self.cells), self.cells).argmin(1)
