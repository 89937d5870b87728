"""Means of metrics over the stars of an epoch that have what is measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["EpochMeans", "star_counts"]


class EpochMeans:
    """Sums of metrics over batches, kept on the device: logging each step would cost more than the step's small
    layers.
    """

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Any] = {}

    def add(self, means: Mapping[str, Tensor], counts: Mapping[str, Any]) -> None:
        """Add the means of a batch, each of so many stars."""
        self.add_sums({name: value.detach() * counts[name] for name, value in means.items()}, counts)

    def add_sums(self, sums: Mapping[str, Tensor], counts: Mapping[str, Any]) -> None:
        """Add sums, each over so many stars."""
        for name, total in sums.items():
            self._sums[name] = self._sums.get(name, 0) + total
            self._counts[name] = self._counts.get(name, 0) + counts[name]

    def take(self) -> dict[str, Tensor]:
        """The means so far, empty without any batch, and begin anew; 0 of what no star has."""
        counts = {name: torch.as_tensor(count).clamp(min=1) for name, count in self._counts.items()}
        means = {name: total / counts[name].to(total.device) for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


def star_counts(batch: Sequence[Tensor]) -> dict[str, int | Tensor]:
    """How many stars of a batch, or of each of M batches, each metric is the mean of: all [], and for a discriminator
    those that have its label, [names] or [M, names].
    """
    flux, _, _, classes, _ = batch
    stars = flux.shape[-2]
    return {"reconstruction": stars, "loss": stars, "discriminator": (classes >= 0).sum(-2)}
