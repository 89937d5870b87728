"""Scalers and bins, fitted on training stars only and kept in the checkpoint.

Shapes: B stars, P pixels, K labels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectangle.errors import SpectangleError

__all__ = ["FluxScaler", "LabelBins", "LabelScaler", "ResidualLabels"]


class FluxScaler(nn.Module):
    r"""Scale flux so that fully connected networks learn it well.

    Raw flux is about 1 everywhere with tiny variations. ``global``: :math:`(x - \bar x_p) / s` with the training mean
    of each pixel and one number :math:`s`, the standard deviation of all pixels about their means. ``pixel``: each
    pixel
    by its own standard deviation (this blows up continuum noise). ``none``: the paper's raw flux.

    Arguments:
        n_pixels: P.
        kind: ``global``, ``pixel`` or ``none``.
    """

    def __init__(self, n_pixels: int, kind: str = "global"):
        super().__init__()
        if kind not in ("global", "pixel", "none"):
            raise SpectangleError(f"flux_scaling is '{kind}'; it must be global, pixel or none.")
        self.kind = kind
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(n_pixels))
        self.register_buffer("scale", torch.ones(n_pixels))

    def fit(self, flux: Tensor) -> None:
        """Fit to training flux [N, P]."""
        if self.kind == "none":
            return
        self.mean.copy_(flux.mean(0, dtype=torch.float64))
        variance = flux.var(0, correction=0).double()
        variance = variance.mean().expand_as(variance) if self.kind == "global" else variance.clamp(min=1e-12)
        self.scale.copy_(variance.sqrt().clamp(min=1e-6))

    @property
    def unit(self) -> Tensor:
        """Flux units of one scaled unit (root mean square over pixels)."""
        return self.scale.square().mean().sqrt()

    def forward(self, flux: Tensor) -> Tensor:
        return (flux - self.mean) / self.scale

    def inverse(self, scaled: Tensor) -> Tensor:
        return torch.addcmul(self.mean, scaled, self.scale)


class LabelScaler(nn.Module):
    """Standardise labels for the decoder (and the conditional encoder).

    Arguments:
        labels: Names, K of them.
        incomplete: Those that some stars lack, M of them: the decoder is told where one is missing.
        attributes: Number of classes by attribute, A of them, C classes in all: one-hot, and the shares of the classes
            among the training stars where it is not known.
    """

    def __init__(
        self, labels: Sequence[str], incomplete: Sequence[str] = (), attributes: Mapping[str, int] | None = None
    ):
        super().__init__()
        self.labels = tuple(labels)
        self.incomplete = [self.labels.index(name) for name in incomplete]
        self.incomplete_columns: Tensor  # the same: an index that is a list waits for a GPU at each use
        self.register_buffer("incomplete_columns", torch.tensor(self.incomplete, dtype=torch.int64), persistent=False)
        self.classes = list((attributes or {}).values())
        self.shares: Tensor
        if self.classes:
            self.register_buffer("shares", torch.zeros(sum(self.classes)))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(len(labels)))
        self.register_buffer("std", torch.ones(len(labels)))

    @property
    def n_outputs(self) -> int:
        """K + M + C."""
        return len(self.labels) + len(self.incomplete) + sum(self.classes)

    def fit(self, labels: Tensor) -> None:
        """Fit to training labels and codes of attributes [N, K + A], NaN where one is missing; refuse a label that is
        constant.
        """
        for i, name in enumerate(self.labels):
            known = labels[:, i].double()
            known = known[torch.isfinite(known)]
            std = known.std(correction=0) if len(known) else torch.zeros(())
            if not std > 0:
                raise SpectangleError(
                    f"Label '{name}' is the same for every training star; remove it with data.labels."
                )
            self.mean[i], self.std[i] = known.mean(), std
        if self.classes:
            codes = labels[:, len(self.labels) :]
            known = [code[torch.isfinite(code)].long() for code in codes.T]
            counts = [torch.bincount(code, minlength=n) for code, n in zip(known, self.classes, strict=True)]
            self.shares.copy_(torch.cat([count / count.sum() for count in counts]))

    def forward(self, labels: Tensor, guess: Tensor | None = None) -> Tensor:
        """Scaled labels [B, K], 1 for each of M that is missing, and one-hot attributes [B, K + M + C] of labels [B, K]
        or labels and codes [B, K + A], NaN where missing. In place of a missing label there is the mean of the
        training stars, or a scaled ``guess`` [B, M].
        """
        scaled = self._labels((labels[:, : len(self.labels)] - self.mean) / self.std, guess)
        return torch.cat([scaled, *self._attributes(labels[:, len(self.labels) :])], dim=1) if self.classes else scaled

    def _attributes(self, codes: Tensor) -> list[Tensor]:
        shares = self.shares.split(self.classes)
        if not codes.shape[1]:
            return [share.expand(len(codes), -1) for share in shares]
        return [
            torch.where(
                torch.isnan(code)[:, None],
                share,
                nn.functional.one_hot(code.nan_to_num(0.0).long(), len(share)).to(share),
            )
            for code, share in zip(codes.T, shares, strict=True)
        ]

    def _labels(self, scaled: Tensor, guess: Tensor | None) -> Tensor:
        if not self.incomplete:
            return scaled
        known = scaled.index_select(1, self.incomplete_columns)
        missing = torch.isnan(known)
        guessed = torch.where(missing, 0.0 if guess is None else guess.to(scaled), known)
        filled = scaled.index_copy(1, self.incomplete_columns, guessed)
        return torch.cat([filled, missing.to(scaled)], dim=1)


class LabelBins(nn.Module):
    """Cut each label into bins over its training range (paper, section 2.1.1: 10 intervals of equal size).

    A bin that no training star falls in stays: its prior is zero and no star asks for it.

    Arguments:
        labels: Names, K of them.
        count: Bins per label, one number or a number by label name.
        strategy: ``uniform`` (equal width) or ``quantile`` (equal numbers of stars).
        classes: Number of classes by attribute: codes 0, 1, ... are bins as they are.
    """

    def __init__(
        self,
        labels: Sequence[str],
        count: int | Mapping[str, int] = 10,
        strategy: str = "uniform",
        classes: Mapping[str, int] | None = None,
    ):
        super().__init__()
        if strategy not in ("uniform", "quantile"):
            raise SpectangleError(f"bins.strategy is '{strategy}'; it must be uniform or quantile.")
        counts = dict(count) if isinstance(count, Mapping) else dict.fromkeys(labels, count)
        counts |= classes or {}
        if missing := set(labels) ^ set(counts):
            raise SpectangleError(f"bins.count and the survey's labels {list(labels)} differ in {sorted(missing)}.")
        self.counts = [int(counts[name]) for name in labels]
        if min(self.counts) < 2:
            raise SpectangleError(f"bins.count is {min(self.counts)}; a discriminator needs at least 2 bins.")
        self.strategy = strategy
        self.classes = [name in (classes or {}) for name in labels]
        self.edges: Tensor
        self.prior: Tensor
        # Inner edges only, padded with +inf: a label outside the training range falls in the first or the last bin.
        self.register_buffer("edges", torch.full((len(labels), max(self.counts) - 1), torch.inf))
        self.register_buffer("prior", torch.zeros(len(labels), max(self.counts)))

    def fit(self, labels: Tensor) -> None:
        """Fit edges and prior to training labels (or their residuals) [N, K], NaN where one is missing."""
        for k, (column, n) in enumerate(zip(labels.double().T, self.counts, strict=True)):
            values = column[torch.isfinite(column)]
            fractions = torch.linspace(0, 1, n + 1, dtype=torch.float64)[1:-1]
            if self.classes[k]:
                inner = torch.arange(n - 1) + 0.5
            elif self.strategy == "uniform":
                inner = values.min() + fractions * (values.max() - values.min())
            else:
                inner = torch.from_numpy(np.quantile(values.numpy(), fractions.numpy()))
            self.edges[k, : n - 1] = inner
        bins = self(labels)
        for k, n in enumerate(self.counts):
            known = bins[bins[:, k] >= 0, k]
            self.prior[k, :n] = torch.bincount(known, minlength=n) / len(known)

    @property
    def entropy(self) -> Tensor:
        """Entropy of each label's bins [K] in nats: the cross-entropy of a discriminator that knows nothing."""
        return torch.special.entr(self.prior).sum(1)

    def forward(self, labels: Tensor) -> Tensor:
        """Bin indices [B, K] int64 of labels [B, K]; -1 where one is missing."""
        bins = torch.searchsorted(self.edges, labels.T.contiguous().to(self.edges), right=True).T.contiguous()
        return torch.where(torch.isfinite(labels).to(bins.device), bins, -1)


class ResidualLabels:
    r"""Replace disentangled labels by what the kept labels do not explain.

    :math:`r_i = y_i - f_i(y_\mathrm{kept})` with :math:`f_i` a gradient-boosted regression on training stars. Kept
    labels leak dropped ones through the population of stars; an adversary on the residual is aimed at the excess only.

    Arguments:
        entangled, disentangled: Columns of the labels that are kept and lost.
    """

    def __init__(self, entangled: Sequence[int], disentangled: Sequence[int]):
        self.entangled, self.disentangled = list(entangled), list(disentangled)
        self._models: list = []

    def fit(self, labels: np.ndarray) -> "ResidualLabels":
        """Fit to training labels [N, K], NaN where one is missing: the trees take it for a value of its own."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        if self.entangled:
            for i in self.disentangled:
                model: Any = HistGradientBoostingRegressor(
                    max_iter=200,
                    learning_rate=0.1,
                    early_stopping=True,  # pyright: ignore[reportArgumentType]  # its stubs know "auto" only
                    random_state=0,
                )
                known = np.isfinite(labels[:, i])
                self._models.append(model.fit(labels[known][:, self.entangled], labels[known, i]))
        return self

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Labels [N, K] with the dropped columns replaced by their residuals."""
        residual = np.array(labels, dtype=np.float64)
        for i, model in zip(self.disentangled, self._models, strict=False):
            residual[:, i] -= model.predict(labels[:, self.entangled])
        return residual
