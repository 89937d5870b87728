"""A regressor that cannot be copied into the model: called as it is, where Python is.

Shapes: B stars, Z latent, K labels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectangle.errors import SpectangleError
from spectangle.inference.readout import Readout

__all__ = ["PythonReadout", "readout_of"]

TOLERANCE = 0.01  # of a label's standard deviation: rounding is far below it, another function above


class PythonReadout(Readout):
    """Read labels [B, K] from a latent [B, Z] by the fitted regressor itself, for instance a forest or neighbours.

    Arguments:
        regressor: Fitted.
        why: What keeps it from being copied, as a sentence.
    """

    def __init__(self, regressor: Any, why: str):
        super().__init__([])
        self.regressor, self.why = regressor, why

    def read(self, z: Tensor, layers: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        """Labels [B, K]; there are no ``layers``."""
        labels = np.asarray(self.regressor.predict(z.detach().cpu().numpy())).reshape(len(z), -1)
        return torch.from_numpy(np.ascontiguousarray(labels, np.float32))

    def check_copied(self, what: str) -> None:
        raise SpectangleError(f"{what}. {self.why}")


def readout_of(regressor: Any) -> Readout:
    """The networks of a fitted regressor, or where they do not read the same, or it has none, the regressor itself."""
    try:
        readout = Readout.from_regressor(regressor)
    except SpectangleError as error:
        return PythonReadout(regressor, str(error))
    except (RuntimeError, ValueError):  # the sizes of its parts do not fit together: there are others between them
        return PythonReadout(regressor, "The run's regressor has parts that cannot be copied into the model.")
    if _reads_the_same(readout, regressor):
        return readout
    return PythonReadout(regressor, "The run's regressor does more than the layers that can be copied into the model.")


@torch.inference_mode()
def _reads_the_same(readout: Readout, regressor: Any) -> bool:
    random = torch.Generator().manual_seed(0)
    part: Any = readout.parts[0]
    z = part.mean + part.scale * torch.randn(64, len(part.mean), generator=random)
    try:
        expected = np.asarray(regressor.predict(z.numpy())).reshape(len(z), -1)
    except ValueError:  # it takes another number of inputs
        return False
    scale, mean = readout.label_scale.numpy(), readout.label_mean.numpy()
    far = 1 + np.abs(expected - mean) / scale
    return bool((np.abs(readout(z).numpy() - expected) < TOLERANCE * scale * far).all())
