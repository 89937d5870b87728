"""Arrays and networks in a form that the page's JavaScript unpacks: base64 of little-endian numbers, deflated in a
page.

16-bit steps halve the file, and what is decoded from such weights agrees with torch to about 1e-5 of the continuum;
half-precision numbers take as much room and agree to 1e-4.
"""

import base64
import zlib
from typing import Any

import numpy as np
from torch import nn

from spectangle.model.plain_layers import folded_layers

__all__ = ["deflated", "move_arrays", "pack", "pack_flux", "pack_marks", "pack_network", "pack_steps"]

FLUX_LOW, FLUX_STEP, MASKED = -1.0, 5e-5, 65535  # flux as 16-bit integers, from -1 to 2.28


def pack(values: np.ndarray, kind: str = "f4") -> dict[str, Any]:
    """An array as ``{kind, shape, data}``; kind is f4 or u2."""
    array = np.ascontiguousarray(values, dtype=f"<{kind}")
    return {"kind": kind, "shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def pack_steps(values: np.ndarray, low: float | None = None, step: float | None = None) -> dict[str, Any]:
    """An array as 16-bit integers, low + step * integer, by default over its own range; NaN becomes 65535."""
    low = float(np.nanmin(values)) if low is None else low
    step = (float(np.nanmax(values)) - low) / (MASKED - 1) or 1.0 if step is None else step
    steps = np.clip(np.round((values.astype(np.float64) - low) / step), 0, MASKED - 1)
    return pack(np.where(np.isfinite(values), steps, MASKED), "u2") | {"low": low, "step": step, "masked": MASKED}


def pack_flux(flux: np.ndarray) -> dict[str, Any]:
    """Flux [n, P] in steps of 5e-5."""
    return pack_steps(flux, FLUX_LOW, FLUX_STEP)


def pack_marks(marks: np.ndarray) -> dict[str, Any]:
    """Booleans, as 1 and 0."""
    return pack_steps(marks, 0.0, 1.0)


def pack_network(layers: nn.Sequential) -> list[dict[str, Any]]:
    """Linear layers with ReLU between them; batch normalisation is folded into the layer before it."""
    return [
        {"weight": pack_steps(weight.detach().numpy()), "bias": pack(bias.detach().numpy())}
        for weight, bias in folded_layers(layers)
    ]


def move_arrays(node: Any, store: bytearray) -> Any:
    """The same payload with the data of its arrays moved into a store; ``at`` says where each begins.

    All first bytes of an array come first, then all second bytes: high bytes are alike, and deflate finds them side by
    side.
    """
    if isinstance(node, list):
        return [move_arrays(one, store) for one in node]
    if not isinstance(node, dict):
        return node
    if "data" not in node:
        return {key: move_arrays(value, store) for key, value in node.items()}
    at, width = len(store), int(node["kind"][1])
    store += np.frombuffer(base64.b64decode(node["data"]), np.uint8).reshape(-1, width).T.tobytes()
    return {key: value for key, value in node.items() if key != "data"} | {"at": at}


def deflated(content: bytes) -> str:
    """base64 of deflated bytes, as the browser's DecompressionStream reads them."""
    return base64.b64encode(zlib.compress(content, 9)).decode()
