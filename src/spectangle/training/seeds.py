"""Which numbers may be seeds: what torch, numpy and scikit-learn all take."""

from typing import Any

from spectangle.errors import SpectangleError

__all__ = ["check_seed"]

HIGHEST = 2**32 - 1


def check_seed(name: str, seed: Any) -> None:
    """Refuse a seed at the start, not after the training, where scikit-learn would.

    Raises:
        SpectangleError: It is no whole number between 0 and 2^32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= HIGHEST:
        raise SpectangleError(
            f"{name} is {'null' if seed is None else seed}; a seed is a whole number between 0 and {HIGHEST}."
        )
