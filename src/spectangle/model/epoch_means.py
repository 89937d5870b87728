"""Means of metrics over the stars of an epoch."""

from collections.abc import Mapping

from torch import Tensor

__all__ = ["EpochMeans"]


class EpochMeans:
    """Sums of metrics over batches, kept on the device: logging each step would cost more than the step's small
    layers.
    """

    def __init__(self):
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, count: int, **means: Tensor) -> None:
        """Add the means of a batch of so many stars."""
        self.add_sums({name: value.detach() * count for name, value in means.items()}, count)

    def add_sums(self, sums: Mapping[str, Tensor], count: int) -> None:
        """Add sums over so many stars."""
        for name, total in sums.items():
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._count += count

    def take(self) -> dict[str, Tensor]:
        """The means so far, empty without any batch, and begin anew."""
        means = {name: total / max(1, self._count) for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
