"""Which device regressors and networks of probes use: that of the training, else a GPU if there is one."""

import torch

__all__ = ["chosen_device", "use_accelerator"]

_accelerator = "auto"


def use_accelerator(name: str) -> None:
    """Let what this process computes beside Lightning use the same device: ``cpu`` leaves every GPU alone."""
    global _accelerator
    _accelerator = name


def chosen_device() -> torch.device:
    """The device for tensors that no trainer places."""
    return torch.device("cuda" if _accelerator != "cpu" and torch.cuda.is_available() else "cpu")
