"""Enter a run folder: one experiment for ever, and what may change when it goes on is named here."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from spectangle.configs.nested import differing, flat
from spectangle.errors import SpectangleError
from spectangle.files import redacted, write_beside
from spectangle.runs.folder import Run
from spectangle.runs.ownership import check_owner, owned
from spectangle.runs.sweep_link import link

__all__ = ["CHANGES_NOTHING", "MAY_CHANGE", "entered", "named", "refuse_change"]

log = logging.getLogger(__name__)

# what changes no number of a run; another number of threads changes its rounding, which a run that goes on warns of
CHANGES_NOTHING = (
    "threads",
    "logger",
    "objective",
    "callbacks.progress",
    "callbacks.regressor.cache",
    "callbacks.probes.cache",
    "callbacks.probes.coarse",
    "probes.coarse",
)
# what may also change while a run is not finished: its end, where it runs, and what is measured beside and after the
# training
MAY_CHANGE = (
    *CHANGES_NOTHING,
    "callbacks",
    "probes.gpu_packs_without",
    "trainer.max_epochs",
    "trainer.accelerator",
    "trainer.devices",
)
OF_EVERY_START = {".hydra", ".owner", ".lock", "train.log"}
SHOWN = 6


@contextmanager
def entered(run: Run, cfg: DictConfig) -> Iterator[None]:
    """Hold a run folder while the block trains in it; its config is compared before, and written only if it may be. A
    start that is refused before anything came of it leaves no folder.

    Raises:
        SpectangleError: Another process trains there, or the folder holds another experiment.
    """
    before = [path for path in run.path.glob("*") if path.name != "train.log" or path.stat().st_size]
    with owned(run.path, replace=link.claimed):
        try:
            refuse_change(run, cfg)
            _write_config(run, cfg)
            yield
        except SpectangleError:
            if not before and {path.name for path in run.path.glob("*")} <= OF_EVERY_START:
                with suppress(SpectangleError):  # who was replaced leaves the folder to its successor
                    check_owner(run.path)
                    shutil.rmtree(run.path, ignore_errors=True)
            raise


def refuse_change(run: Run, cfg: DictConfig) -> None:
    """Refuse to go on with another experiment than the one that a folder holds.

    Raises:
        SpectangleError: Keys differ that may not.
    """
    if not (run.finished or run.last_checkpoint.is_file()) or not (run.path / ".hydra" / "config.yaml").is_file():
        return  # nothing is there that could be mixed
    then, now = flat(run.written_config), flat(OmegaConf.to_container(cfg, resolve=False))
    allowed = CHANGES_NOTHING if run.finished else MAY_CHANGE
    changed = differing([then, now])
    if keys := [key for key in changed if not named(key, allowed)]:
        state = "is finished, with another config" if run.finished else "holds another experiment"
        raise SpectangleError(
            f"{run.path} {state}: {_changes(keys, then, now)}. Undo the change, or give another folder: "
            f"hydra.run.dir=DIR. What may change here: {', '.join(allowed)}."
        )
    if keys := [key for key in changed if not named(key, CHANGES_NOTHING)]:
        log.info("changed since the last start: %s", _changes(keys, then, now))


def named(key: str, keys: Sequence[str]) -> bool:
    """Whether a dotted key is one of some keys, or lies below one."""
    return any(key == one or key.startswith(f"{one}.") for one in keys)


def _write_config(run: Run, cfg: DictConfig) -> None:
    """What Hydra itself would write before anything could be compared (``hydra.output_subdir``)."""
    hydra: Any = HydraConfig.instance().cfg
    for name, node in (("config", cfg), ("hydra", hydra), ("overrides", hydra.hydra.overrides.task)):
        write_beside(run.path / ".hydra" / f"{name}.yaml", redacted(OmegaConf.to_yaml(node)))


def _changes(keys: Sequence[str], then: dict[str, Any], now: dict[str, Any]) -> str:
    """What some keys were and are."""
    words = [f"{key} (was {_word(then, key)}, is {_word(now, key)})" for key in keys[:SHOWN]]
    return ", ".join(words + ["..."] * (len(keys) > SHOWN))


def _word(config: dict[str, Any], key: str) -> str:
    return str(config[key]) if key in config else "not there"
