"""Which device regressors and networks of probes use: that of the training, else a GPU if there is one."""

import torch

__all__ = ["chosen_device", "use_accelerator"]

_accelerator: str = "auto"
_index: int | None = None


def use_accelerator(name: str, index: int | None = None) -> None:
    """Let what this process computes beside Lightning use the same device: ``cpu`` leaves every GPU alone, an index
    all GPUs but one.
    """
    global _accelerator, _index
    _accelerator, _index = name, index


def chosen_device() -> torch.device:
    """The device for tensors that no trainer places."""
    if _accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda" if _index is None else f"cuda:{_index}")
