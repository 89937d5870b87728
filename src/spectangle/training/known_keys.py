"""The keys of a config that something reads: arguments of what it builds, and those of groups that build nothing."""

import inspect
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from spectangle.configs.targets import located
from spectangle.errors import refuse_unknown
from spectangle.model.adversary import Adversary
from spectangle.model.optimizers import OPTIONS
from spectangle.model.scaling import LabelBins

__all__ = ["BY_MODEL", "GIVEN", "built_nodes", "check_keys"]

GIVEN = ("_target_", "_args_", "_convert_", "_partial_", "_recursive_")  # Hydra's own
# what the model tells its adversary and its bins
BY_MODEL = {"labels", "latent", "lambdas", "bins", "classes", "attributes", "incomplete"}


def check_keys(cfg: DictConfig) -> None:
    """Refuse keys that nothing takes, which Hydra lets a plus add anywhere.

    Raises:
        SpectangleError: Names one, and the nearest that there is; or what is to be built is not there.
    """
    taken: dict[str, set[str]] = {
        "labels": {"attributes", "require", "weight"},
        "optimizer": set(OPTIONS),
        "adversary": (_arguments(Adversary) or set()) - BY_MODEL,
        "bins": (_arguments(LabelBins) or set()) - BY_MODEL | {"entangled_count"},  # that is the adversary's
        "logger": set(),  # csv; the others build something
        "experiment": set(),  # changes other groups
    }
    for group, known in taken.items():
        node = cfg.get(group)
        if isinstance(node, DictConfig) and "_target_" not in node:
            refuse_unknown(group, node, known)
    for path, node in built_nodes(cfg):
        known = _arguments(located(path, str(node["_target_"])))
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


def _arguments(built: Any) -> set[str] | None:
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
