"""Stars that are read once for all runs of a pack, with what is fitted to them before the training: processes that are
forked from the one that has them share them.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from spectangle.errors import SpectangleError
from spectangle.threads import use_threads

if TYPE_CHECKING:  # it loads torch, which the controller of a sweep has no use for
    from spectangle.data.module import SpectraDataModule
    from spectangle.model.autoencoder import DisentanglingAutoencoder

__all__ = ["model_for", "shared_stars", "stars_of"]

log = logging.getLogger(__name__)


@dataclass
class Shared:
    """What is said of the stars in the config, the stars, and the first model for them once it is built."""

    facts: dict[str, Any]
    data: "SpectraDataModule"
    model: "DisentanglingAutoencoder | None" = None


_shared: Shared | None = None


@contextmanager
def shared_stars(compose: Callable[[], DictConfig]) -> Iterator[None]:
    """Hold the stars of a config, and a model that was calibrated to them, while the block starts processes. What
    cannot be read is left to the runs, which say why.

    Arguments:
        compose: Makes the config of one of them.
    """
    from spectangle.model.build import build_model

    global _shared
    use_threads(1)  # threads of OpenMP do not survive a fork, nor do the processes that wait for them
    try:
        cfg = compose()
        if "data" in cfg:
            data: SpectraDataModule = hydra.utils.instantiate(cfg.data)
            data.setup()
            _shared = Shared(_facts(cfg), data)
            with suppress(Exception):  # a run whose model cannot be built says why
                _shared.model = build_model(cfg, data)
    except SpectangleError:
        pass
    except Exception:  # whatever it is, a run that meets it alone says it where it is looked for
        log.warning("The stars of a pack could not be read once for all of its runs.", exc_info=True)
    try:
        yield
    finally:
        _shared = None


def stars_of(cfg: DictConfig) -> "SpectraDataModule":
    """The data module of a config, with the stars that this process was given, if they are the same."""
    if _shared is None or _shared.facts != _facts(cfg) or "seed" not in cfg.data:
        return hydra.utils.instantiate(cfg.data)
    data = _shared.data
    data.seed = cfg.data.seed
    log.info("stars   read once for the runs of the pack")
    return data


def model_for(data: "SpectraDataModule") -> "DisentanglingAutoencoder | None":
    """A model that was calibrated to these stars, if this process was given one with them."""
    return _shared.model if _shared is not None and data is _shared.data else None


def _facts(cfg: DictConfig) -> dict[str, Any]:
    """All that is said of the stars, but for the seed, which is of their order."""
    facts: Any = OmegaConf.to_container(cfg.data, resolve=True)
    return {key: value for key, value in facts.items() if key != "seed"}
