"""Arrays and networks in a form that the page's JavaScript unpacks: base64 of little-endian numbers.

Half-precision weights halve the file; the decoded flux then agrees with torch to about 1e-5.
"""

import base64
from typing import Any

import numpy as np
import torch
from torch import nn

from spectangle.folding import folded_layers

__all__ = ["pack", "pack_flux", "pack_network"]

FLUX_LOW, FLUX_STEP, MASKED = -1.0, 5e-5, 65535  # flux as 16-bit integers, from -1 to 2.28


def pack(values: np.ndarray, kind: str = "f4") -> dict[str, Any]:
    """An array as ``{kind, shape, data}``; kind is f4, f2 or u2."""
    array = np.ascontiguousarray(values, dtype=f"<{kind}")
    return {"kind": kind, "shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def pack_flux(flux: np.ndarray) -> dict[str, Any]:
    """Flux [n, P] as 16-bit integers; NaN becomes 65535."""
    steps = np.clip(np.round((flux.astype(np.float64) - FLUX_LOW) / FLUX_STEP), 0, MASKED - 1)
    return pack(np.where(np.isfinite(flux), steps, MASKED), "u2") | {"low": FLUX_LOW, "step": FLUX_STEP, "masked": MASKED}


@torch.no_grad()
def pack_network(layers: nn.Sequential) -> list[dict[str, Any]]:
    """Linear layers with ReLU between them; batch normalisation is folded into the layer before it."""
    return [{"weight": pack(weight.numpy(), "f2"), "bias": pack(bias.numpy())} for weight, bias in folded_layers(layers)]
