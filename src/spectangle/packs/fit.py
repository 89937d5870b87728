"""What a run asks its pack to fit, whatever the networks are: see ``network_fits`` and ``stopped_fits``."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

__all__ = ["Fit"]


class Fit(Protocol):
    """Networks and the stars that they are to be fitted to."""

    @property
    def kind(self) -> tuple:
        """What the fits that are done together have in common."""
        ...

    @staticmethod
    def together(fits: Sequence[Any], device: torch.device) -> list[Any]:
        """What comes of each of some fits of one kind."""
        ...
