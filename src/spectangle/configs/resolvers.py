"""Interpolations of our own that configs may use: ``${cache_folder:}``, ``${unique:}`` and
``${with_lambda:VALUE,${lambdas},OTHERWISE}``.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from spectangle import caching

__all__ = ["register_resolvers", "resolved_choices"]

OF_THE_CHOICES = (
    "with_lambda",
)  # these depend on nothing but the config: a run that is read later resolves them to the same value


def register_resolvers() -> None:
    """Make the interpolations known to OmegaConf; more than once does no harm."""
    from omegaconf import OmegaConf

    OmegaConf.register_resolver("cache_folder", cache_folder, replace=True)
    OmegaConf.register_resolver("unique", lambda: secrets.token_hex(2), replace=True, use_cache=True)
    OmegaConf.register_resolver("with_lambda", with_lambda, replace=True)


def with_lambda(value: Any, lambdas: Mapping[str, Any], otherwise: Any = 0.0) -> Any:
    """The value where any label is entangled or disentangled, the other one where all lambda are 0."""
    return value if any(lambdas.values()) else otherwise


def cache_folder() -> str:
    """Where surveys and baselines are kept between runs."""
    return str(caching.cache_folder())


def resolved_choices(written: dict[str, Any]) -> dict[str, Any]:
    """A written config with every value that another key gives; what a machine gives stays as it was written."""
    from omegaconf import OmegaConf

    register_resolvers()
    return _resolved(written, OmegaConf.create(written))


def _resolved(node: Any, root: Any, prefix: str = "") -> Any:
    if isinstance(node, dict):
        return {key: _resolved(value, root, f"{prefix}.{key}" if prefix else str(key)) for key, value in node.items()}
    if not isinstance(node, str) or "${" not in node:
        return node
    if ":" in node and not node.startswith(
        tuple(f"${{{name}:" for name in OF_THE_CHOICES)
    ):  # a folder of the machine, or the run's own
        return node
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = OmegaConf.select(root, prefix)
        return OmegaConf.to_container(found, resolve=False) if OmegaConf.is_config(found) else found
    except OmegaConfBaseException:
        return node
