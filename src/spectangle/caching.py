"""What is computed once and kept in the cache: found by all that decides it, made again where its file is damaged."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from filelock import Timeout

from spectangle.errors import SpectangleError
from spectangle.files import made_once, write_beside
from spectangle.version import VERSION

__all__ = ["Wanted", "cache_folder", "cache_key", "cached", "cached_each", "settings"]

log = logging.getLogger(__name__)
Numbers = TypeVar("Numbers", float, list[float])
DECIDING = ("scikit-learn", "torch", "numpy")  # another version may fit other numbers


def cache_folder() -> Path:
    """Folder of surveys, limits and baselines: ``$SPECTANGLE_CACHE`` or ``spectangle`` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "spectangle"
    folder = Path(os.environ.get("SPECTANGLE_CACHE", default))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cache_key(*facts: Any) -> str:
    """A short hash of facts, of this version and of those of the packages that compute."""
    versions = {"spectangle": VERSION} | {name: metadata.version(name) for name in DECIDING}
    return hashlib.sha256(json.dumps([versions, *facts], sort_keys=True, default=str).encode()).hexdigest()[:16]


def settings(estimator: Any) -> Any:
    """Class and parameters of an estimator and of those inside it; its ``repr`` would leave out what is long."""
    if isinstance(estimator, Mapping):
        return {str(key): settings(value) for key, value in estimator.items()}
    if isinstance(estimator, (list, tuple)):
        return [settings(value) for value in estimator]
    if hasattr(estimator, "get_params") and not isinstance(estimator, type):
        kind = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
        return {"class": kind} | {
            key: settings(value) for key, value in sorted(estimator.get_params(deep=False).items())
        }
    if callable(estimator):
        return f"{estimator.__module__}.{getattr(estimator, '__qualname__', type(estimator).__qualname__)}"
    if hasattr(estimator, "tolist"):
        return estimator.tolist()
    return estimator if isinstance(estimator, (bool, int, float, str)) or estimator is None else repr(estimator)


class Wanted(NamedTuple):
    """What the cache is asked for, see :func:`cached`."""

    path: Path
    make: Callable[[], dict[str, Any]]
    beside: Path | None = None


def cached_each(wanted: Sequence[Wanted]) -> list[dict[str, Any]]:
    """Several parts of a work from the cache, so that processes which need the same at the same time share it: a part
    that another one is making is left to it, and waited for when nothing else is left to do.
    """
    found: dict[Path, dict[str, Any]] = {}
    for wait in (False, True):
        for one in wanted:
            if one.path not in found:
                with suppress(Timeout):
                    found[one.path] = cached(*one, wait=wait)
    return [found[one.path] for one in wanted]


def cached(
    path: Path, make: Callable[[], dict[str, Numbers]], beside: Path | None = None, wait: bool = True
) -> dict[str, Numbers]:
    """Numbers from the cache; made and stored if they are not there, not whole, or lack the file that belongs beside
    them.

    A cache that cannot be written (a full disk, a folder of somebody else's) costs a word, not the numbers.

    Raises:
        Timeout: Another process is making them, and nobody is to ``wait``.
    """

    def whole(path: Path) -> bool:
        return _read(path) is not None and (beside is None or (beside.is_file() and beside.stat().st_size > 0))

    with made_once(path, whole, wait) as missing:
        if not missing:
            return _read(path) or {}
        numbers = make()
        try:
            write_beside(path, json.dumps(numbers))
        except SpectangleError as error:
            log.warning("%s; it is computed again next time.", error)
        return numbers


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
