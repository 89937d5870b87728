"""Interpolations of our own that configs may use: ``${cache_folder:}``, ``${unique:}`` and ``${with_lambda:VALUE,${lambdas}}``."""

import secrets
from collections.abc import Mapping
from typing import Any

__all__ = ["OF_THE_CHOICES", "register_resolvers"]

OF_THE_CHOICES = ("with_lambda",)  # these depend on nothing but the config: a run that is read later resolves them to the same value


def register_resolvers() -> None:
    """Make the interpolations known to OmegaConf; more than once does no harm."""
    from omegaconf import OmegaConf

    OmegaConf.register_resolver("cache_folder", cache_folder, replace=True)
    OmegaConf.register_resolver("unique", lambda: secrets.token_hex(2), replace=True, use_cache=True)
    OmegaConf.register_resolver("with_lambda", with_lambda, replace=True)


def with_lambda(value: float, lambdas: Mapping[str, Any]) -> float:
    """The value where any label is entangled or disentangled, 0 where all lambda are."""
    return value if any(lambdas.values()) else 0.0


def cache_folder() -> str:
    """Where surveys and baselines are kept between runs."""
    from spectangle import caching  # it needs runs, which needs this

    return str(caching.cache_folder())
