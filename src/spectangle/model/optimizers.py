"""The optimizers of both players."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from spectangle.errors import refuse_unknown
from spectangle.model.losses import decay_factor

__all__ = ["OPTIONS", "decay_rates", "make_optimizers", "optimizer_options"]

DEFAULTS: dict[str, Any] = {
    "lr": 1e-3,
    "betas": (0.9, 0.999),
    "weight_decay": 0.0,
    "lr_end": 0.0,
    "discriminator_lr": 1e-3,
    "discriminator_betas": (0.5, 0.999),
    "discriminator_lr_end": 0.2,
}
OPTIONS = (*DEFAULTS, "sigma_lr")


def optimizer_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """All options of the optimizers, those that are not given by their defaults.

    Raises:
        SpectangleError: An option is none of theirs.
    """
    refuse_unknown("optimizer", given or {}, OPTIONS)
    return DEFAULTS | dict(given or {})


def make_optimizers(
    autoencoder: Sequence[nn.Parameter],
    sigma: Sequence[nn.Parameter],
    discriminators: Sequence[nn.Parameter],
    options: Mapping[str, Any],
) -> list[torch.optim.Optimizer]:
    """AdamW for the autoencoder and Adam for the discriminators.

    Arguments:
        autoencoder: Parameters of encoder, decoder and what else learns with them.
        sigma: Of a stochastic latent's noise; with ``sigma_lr`` they have a rate of their own, and no weight decay.
        discriminators: Of the discriminators.
        options: See :func:`optimizer_options`.
    """
    apart = bool(sigma) and "sigma_lr" in options
    groups: list[dict[str, Any]] = [{"params": [*autoencoder, *(() if apart else sigma)]}]
    if apart:
        groups.append({"params": list(sigma), "lr": options["sigma_lr"], "weight_decay": 0.0})
    betas, weight_decay = tuple(options["betas"]), options["weight_decay"]
    return [
        torch.optim.AdamW(groups, lr=options["lr"], betas=betas, weight_decay=weight_decay, fused=True),
        torch.optim.Adam(
            discriminators,
            lr=options["discriminator_lr"],
            betas=tuple(options["discriminator_betas"]),
            fused=True,
        ),
    ]


def decay_rates(optimizers: Sequence[torch.optim.Optimizer], ends: Sequence[float], progress: float) -> None:
    """Set the rates of the optimizers by the progress of the training, 0 to 1; ``ends`` are the fractions of the rates
    at its end.
    """
    for optimizer, end in zip(optimizers, ends, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * decay_factor(end, progress)
