"""What a config builds, and the arguments that it may give to it."""

import inspect
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from spectangle.configs.targets import located
from spectangle.errors import refuse_unknown

__all__ = ["GIVEN", "arguments", "built_nodes", "check_arguments"]

GIVEN = ("_target_", "_args_", "_convert_", "_partial_", "_recursive_")  # Hydra's own


def check_arguments(cfg: DictConfig) -> None:
    """Refuse keys that no constructor takes, before anything is built.

    Raises:
        SpectangleError: Names one, and the nearest that there is; or what is to be built is not there.
    """
    for path, node in built_nodes(cfg):
        known = arguments(located(path, str(node["_target_"])))
        if known is not None:
            refuse_unknown(path, [key for key in node if key not in GIVEN], known)


def built_nodes(cfg: DictConfig, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Path and node of everything that a config builds."""
    for key in cfg:
        child = cfg._get_node(key)
        if isinstance(child, DictConfig) and not child._is_interpolation() and not child._is_none():
            name = f"{path}.{key}" if path else str(key)
            if "_target_" in child:
                yield name, child
            yield from built_nodes(child, name)


def arguments(built: Any) -> set[str] | None:
    """Names of the arguments that a class or function takes; None: any."""
    names: set[str] = set()
    for one in built.__mro__[:-1] if inspect.isclass(built) else [built]:
        function = one.__dict__.get("__init__") if inspect.isclass(one) else one
        if function is None:
            continue
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # compiled
            return None
        names |= {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - {"self"}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):  # else it hands them to the class it is made from
            return names
    bare = inspect.isclass(built) and not any({"__init__", "__new__"} & set(one.__dict__) for one in built.__mro__[:-1])
    return names if bare else None
