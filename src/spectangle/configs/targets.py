"""What a config may build: classes of the project, of the libraries that its groups name, and of one's own packages."""

import os
from pydoc import ErrorDuringImport, locate
from typing import Any

from omegaconf import DictConfig, ListConfig

from spectangle.errors import SpectangleError

__all__ = ["OWN", "check_targets", "located", "own_packages", "targets"]

LIBRARIES = ("spectangle", "lightning", "sklearn", "hydra", "hydra_plugins", "optuna")
OWN = "SPECTANGLE_TARGETS"  # not a key: a config that comes from others must not say what it may run


def own_packages() -> list[str]:
    """The packages that the environment variable ``SPECTANGLE_TARGETS`` names, with commas between them.

    Raises:
        SpectangleError: A name is no name of a package.
    """
    names = [name.strip() for name in os.environ.get(OWN, "").split(",") if name.strip()]
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise SpectangleError(
                f"{OWN} names '{name}'; it must be names of Python packages with commas between them, for instance "
                f"{OWN}=mylib or {OWN}=mylib,other."
            )
    return names


def targets() -> list[str]:
    """Patterns of everything that a config may build, as Hydra's execution whitelist takes them."""
    return [f"{package}.*" for package in (*LIBRARIES, *own_packages())]


def check_targets(node: object, path: str = "") -> None:
    """Refuse what a config may not build, or what is not there, before anything is made.

    Hydra would refuse it only where it is built: a callback after the survey was made.

    Raises:
        SpectangleError: A ``_target_`` is of a package that nobody named, or of one's own and cannot be imported.
    """
    if not isinstance(node, (DictConfig, ListConfig)) or node._is_none() or node._is_interpolation():
        return
    if isinstance(node, ListConfig):
        for index in range(len(node)):
            check_targets(node._get_node(index), f"{path}[{index}]")
        return
    for key in node:
        if key == "_target_" and isinstance(target := node._get_node(key)._value(), str):  # pyright: ignore
            _check_target(path, target)
        else:
            check_targets(node._get_node(key), f"{path}.{key}" if path else str(key))


def _check_target(path: str, target: str) -> None:
    package = target.partition(".")[0]
    own = target.startswith(tuple(f"{name}." for name in own_packages()))
    if package in LIBRARIES or "${" in target:
        return
    if not own:
        known = ",".join([*own_packages(), package])
        raise SpectangleError(
            f"{path} builds {target}, and a config may only build classes of spectangle and of the libraries it uses. "
            f"If {package} is yours, or you trust it, say so in the environment: {OWN}={known} (docs/extending.md)."
        )
    located(path, target)


def located(path: str, target: str) -> Any:
    """The class or function that a node of a config builds.

    Raises:
        SpectangleError: It cannot be imported.
    """
    try:
        found, reason = locate(target), "there is no such name"
    except ErrorDuringImport as error:
        found, reason = None, " ".join(str(error).split())
    if found is None:
        raise SpectangleError(
            f"{path} builds {target}, which cannot be imported ({reason}). Look at its spelling; if "
            f"{target.partition('.')[0]} is not installed, name the folder that it is in: PYTHONPATH=FOLDER."
        )
    return found
