"""Which configurations of a sweep may train as one pack."""

from collections.abc import Mapping
from typing import Any

__all__ = ["pack_key"]

# what may differ inside a pack; below a key that ends with a dot, everything
FREE = (
    "seed",
    "data.seed",
    "threads",
    "objective",
    "logger.",
    "callbacks.",
    "regressor.",
    "probes.",
    "trainer.max_epochs",
    "adversary.schedule",
    "adversary.warmup",
    "adversary.plateau_steps",
    "adversary.plateau_patience",
    "optimizer.lr",
    "optimizer.lr_end",
    "optimizer.sigma_lr",
    "optimizer.weight_decay",
    "optimizer.betas",
    "optimizer.discriminator_lr",
    "optimizer.discriminator_lr_end",
    "optimizer.discriminator_betas",
)
# what may differ, but not in its sign: it decides who is kept and who is lost, and what is computed at all
BY_SIGN = (
    "lambdas.",
    "adversary.lambda_scale",
    "adversary.entangled_scale",
    "model.input_noise",
    "model.latent_noise",
    "model.latent_rate",
    "model.reconstruction_weight",
)


def pack_key(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What the configurations of a pack have in common, of the parameters that tell a configuration from the others of
    its sweep.

    Configurations of one key have, as a rule, networks of the same shapes on the same stars; the pack itself trains
    apart what does not fit. A key that is not known to be harmless is not, nor is a config group as a whole. A number
    at the top of the config (``strength`` of ``sweeps/paper_grid.yaml``) stands for lambdas or the like.
    """
    found = []
    for key, value in params.items():
        name = key.lstrip("+")
        by_sign = _named(name, BY_SIGN) or "." not in name
        if not _named(name, FREE):
            found.append((name, _sign(value) if by_sign else str(value)))
    return tuple(sorted(found))


def _named(name: str, keys: tuple[str, ...]) -> bool:
    return any(name == key or (key.endswith(".") and name.startswith(key)) for key in keys)


def _sign(value: Any) -> str:
    """The sign of a number, also of one that is written as text; anything else as it is."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return "+" if number > 0 else "-" if number < 0 else "0"
