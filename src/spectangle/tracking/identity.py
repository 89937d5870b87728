"""Who a run is in W&B: id, group, name, tags and config, from its folder and its choices.

The id holds the name of the run's folder (in a sweep, the configuration's hash) and is kept in the folder itself, so
that a run that is requeued, on whichever node, goes on as the same W&B run, and a new run in a folder of an old name is
another one.
"""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from spectangle.files import write_beside
from spectangle.runs.folder import Run
from spectangle.runs.sweep_folder import sweep_record

__all__ = ["Identity", "identify", "identify_sweep", "public_config", "tags"]

SECRET = re.compile(r"(api|access|secret|private)_?key|token|password|passwd|credential", re.IGNORECASE)
DATE = re.compile(r"\d{4}-\d\d-\d\d")
COPIES = {"model": ("lambdas", "bins", "adversary", "optimizer")}  # config/model repeats these groups
SHOWN = (
    "data",
    "model",
    "lambdas",
    "bins",
    "adversary",
    "optimizer",
    "regressor",
    "probes",
    "trainer",
    "seed",
    "threads",
    "objective",
)
CHOICES = ("data", "model", "lambdas", "bins", "adversary", "optimizer", "regressor", "probes", "experiment")


@dataclass
class Identity:
    """Names of a run in W&B; ``group`` is empty outside a sweep."""

    id: str
    group: str
    name: str
    started: int = 0


def identify(run: Run, sweep: str | None = None, wanted: str | None = None) -> Identity:
    """Read the identity of a run folder, or give it one; counts how often the run was started.

    Arguments:
        run: The run.
        sweep: Folder of a plain Hydra multirun that the run belongs to.
        wanted: An id that the user has chosen for a run outside sweeps.
    """
    return _kept(run.path, lambda: _new_identity(run.path.resolve(), sweep, wanted))


def identify_sweep(folder: Path) -> Identity:
    """Read the identity of a sweep's summary run, or give it one."""
    group = sweep_record(folder).get("study_name") or _title(folder.resolve())
    return _kept(folder, lambda: Identity(_unique(f"{group}-summary"), group, f"{group}: summary"))


def _kept(folder: Path, make: Callable[[], Identity]) -> Identity:
    path = folder / "wandb" / "identity.json"
    try:
        known = Identity(**json.loads(path.read_text()))
    except (FileNotFoundError, TypeError, json.JSONDecodeError):
        known = make()
    known.started += 1
    write_beside(path, json.dumps(asdict(known), indent=2) + "\n")
    return known


def _new_identity(path: Path, sweep: str | None, wanted: str | None) -> Identity:
    folder = next(
        (parent for parent in path.parents[:2] if sweep_record(parent)), Path(sweep).resolve() if sweep else None
    )
    if folder is not None and folder in path.parents:
        group, name = sweep_record(folder).get("study_name") or _title(folder), path.relative_to(folder).as_posix()
    else:
        group, name = "", _title(path)
    if wanted and not group:
        return Identity(wanted, group, name)
    return Identity(_unique(f"{group}-{name}"), group, name)


def _unique(words: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", words.replace("=", "")).strip("-")
    return f"{plain[-56:].lstrip('-.')}-{uuid.uuid4().hex[:6]}"


def survey_name(cfg: DictConfig, choices: Mapping[str, Any]) -> str:
    """The name of the survey's file, or of the config's choice where the file has no name of its own."""
    path, choice = cfg.data.get("path"), str(choices.get("data"))
    return Path(path).stem if path else {"synthetic": "embedded"}.get(choice, choice)


def tags(cfg: DictConfig, choices: Mapping[str, Any]) -> list[str]:
    """What runs are filtered by: lambda pair, architecture, survey."""
    found = {"lambdas": choices.get("lambdas"), "model": choices.get("model"), "survey": survey_name(cfg, choices)}
    return [f"{key}:{value}"[:64] for key, value in found.items() if value]


def public_config(cfg: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved choices of a run as nested plain containers; W&B shows and filters them as ``lambdas.teff``.

    Copies of a group, class names and anything that is named like a secret are left out.
    """
    plain: dict[str, Any] = {
        key: OmegaConf.to_container(cfg[key], resolve=True) if OmegaConf.is_config(cfg[key]) else cfg[key]
        for key in SHOWN
        if key in cfg
    }
    for key, copies in COPIES.items():
        plain[key] = {name: value for name, value in (plain.get(key) or {}).items() if name not in copies}
    names = {"pair": choices.get("lambdas"), "survey": survey_name(cfg, choices)}  # not nested: simple to filter by
    return _clean(plain) | names | {"choice": {key: choices[key] for key in CHOICES if choices.get(key)}}


def _clean(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            str(key): _clean(value)
            for key, value in node.items()
            if key not in ("_target_", "_convert_") and not SECRET.search(str(key))
        }
    return [_clean(value) for value in node] if isinstance(node, list) else node


def _title(path: Path) -> str:
    return f"{path.parent.name}/{path.name}" if DATE.fullmatch(path.parent.name) else path.name
