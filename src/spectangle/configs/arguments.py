"""What a user may write shorter on the command line than Hydra asks for."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import yaml
from hydra.core.override_parser.types import Quote, QuotedString

from spectangle.errors import SpectangleError, did_you_mean

__all__ = [
    "CONF",
    "SHORT",
    "SWEEPS",
    "label_key",
    "named_sweep",
    "quoted",
    "resume_arguments",
    "sweep_arguments",
    "sweep_file",
]

CLONE, INSTALLED = (
    Path(__file__).resolve().parents[3],
    Path(__file__).resolve().parents[1] / "share",
)  # a wheel brings its own
CONF, SWEEPS = (((CLONE if (CLONE / "conf").is_dir() else INSTALLED) / name) for name in ("conf", "sweeps"))
PATHS = (
    *("hydra.run.dir", "hydra.sweep.dir", "data.path", "run", "compare", "sweep", "survey", "spectra", "out", "output"),
    *("save", "folder", "ids", "labels_table", "labels.table", "labels.apogee", "labels.galah", "labels.galah_gaia"),
)
LISTS = ("run", "runs", "compare", "spectra")
SHORT = {
    "sweep.dir=": "hydra.sweep.dir=",
    "sweep.": "hydra.sweeper.",
    "trial_seeds=": "hydra.sweeper.trial_seeds=",
    "dry_run=": "hydra.sweeper.dry_run=",
}


def resume_arguments(arguments: list[str]) -> list[str]:
    """Replace ``resume=RUN`` by the overrides that made RUN, its configs and its folder: the run goes on where it
    stopped.

    The process goes to the folder that the run was started in, so that relative paths mean what they meant.

    Raises:
        SpectangleError: RUN is no run folder.
    """
    folders = [argument.removeprefix("resume=") for argument in arguments if argument.startswith("resume=")]
    if not folders:
        return arguments
    run, rest = Path(folders[-1]).resolve(), [argument for argument in arguments if not argument.startswith("resume=")]
    try:
        overrides = yaml.safe_load((run / ".hydra" / "overrides.yaml").read_text()) or []
        made = yaml.safe_load((run / ".hydra" / "hydra.yaml").read_text())["hydra"]
        older = "labels" not in yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise SpectangleError(
            f"{run} is not a run folder: its .hydra/overrides.yaml and hydra.yaml cannot be read ({error}). "
            "Give the folder that spectangle train printed."
        ) from error
    if Path(made["runtime"]["cwd"]).is_dir():
        os.chdir(made["runtime"]["cwd"])
    place = [f"hydra.run.dir={quoted(str(run))}", "hydra.mode=RUN"]
    before = ["labels.require=all"] if older else []  # when a star without a label was left out
    return [*_configs(made), *before, *overrides, *rest, *place]


def sweep_arguments(arguments: list[str]) -> list[str]:
    """Spell out the short names of a sweep's keys: ``sweep.workers=4`` is ``hydra.sweeper.workers=4``; a folder is
    quoted if it must be.
    """
    found = ((argument, next((key for key in SHORT if argument.startswith(key)), None)) for argument in arguments)
    longer = [argument if key is None else SHORT[key] + argument[len(key) :] for argument, key in found]
    return [_quoted_path(argument) for argument in longer]


def label_key(argument: str, parent: str = "lambdas") -> str:
    """``lambdas.vsini=1`` as Hydra takes it whether conf/ names the label or not, ``++lambdas.vsini=1``; only the
    survey knows which labels there are.
    """
    return f"++{argument}" if argument.startswith(f"{parent}.") else argument


def named_sweep(arguments: list[str]) -> list[str]:
    """Replace ``sweep=NAME`` by the config of that name: from the folder of ``-cd`` if it is there, else from those
    that are shipped.

    Raises:
        SpectangleError: No sweep has that name.
    """
    names = [argument.removeprefix("sweep=") for argument in arguments if argument.startswith("sweep=")]
    if not names:
        return arguments
    rest, own = [argument for argument in arguments if not argument.startswith("sweep=")], None
    for flag in ("-cd", "--config-dir"):
        if flag in rest[:-1]:
            own = rest[rest.index(flag) + 1]
    if own is not None and (Path(own) / f"{names[-1]}.yaml").is_file():
        return ["-cn", names[-1], *rest]
    sweep_file(names[-1])
    if own is not None:
        place = next(index for index, word in enumerate(rest) if word in ("-cd", "--config-dir"))
        rest = [*rest[:place], *rest[place + 2 :], f"hydra.searchpath=[file://{Path(own).resolve()}]"]
    return ["-cd", str(SWEEPS), "-cn", names[-1], *rest]


def sweep_file(name: str) -> Path:
    """The file of a sweep that is shipped.

    Raises:
        SpectangleError: No sweep has that name.
    """
    known = sorted(path.stem for path in SWEEPS.glob("*.yaml"))
    if name not in known:
        raise SpectangleError(f"There is no sweep '{name}'.{did_you_mean(name, known)} There are: {', '.join(known)}.")
    return SWEEPS / f"{name}.yaml"


def quoted(text: str) -> str:
    """Text as one value of an override: what Hydra would read as a list, a function or two words is quoted."""
    if text[:1] in ("'", '"') or "${" in text or not set(text) & set(" \t,()[]{}=:'\"\\"):
        return text
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def _quoted_path(argument: str) -> str:
    """Quote a path of the file system as a value: ``data.path=/stars (new)/a.h5``, ``run=runs/table1/c1/seed=0``; and
    those of a list of runs: ``run=[runs/table1/c1/seed=0,runs/table1/c1/seed=1]``.
    """
    key, equals, value = argument.partition("=")
    if key in LISTS and value[:1] == "[" and value[-1:] == "]" and "=" in value and not set(value) & set("'\"\\"):
        return f"{key}=[{','.join(quoted(path.strip()) for path in value[1:-1].split(','))}]"
    plain = bool(equals) and value[:1] not in ("[", "{")
    path = key in PATHS or ("/" in value and "=" in value and not set(value) & set("(,"))
    return f"{key}={quoted(value)}" if plain and path else argument


def _configs(made: dict[str, Any]) -> list[str]:
    """Where the configs of a run came from: its primary config, and every folder that was added to the packaged
    ones.
    """
    words = ["-cn", made["job"]["config_name"]]
    for option, provider in (("-cp", "main"), ("-cd", "command-line")):
        for place in (
            _path(source["path"]) for source in made["runtime"]["config_sources"] if source["provider"] == provider
        ):
            if place.is_dir() and place != CONF:
                words += [option, str(place)]
    return words + [item for item in made["overrides"]["hydra"] if item.lstrip("+").startswith("hydra.searchpath=")]


def _path(source: str) -> Path:
    """The folder of a config source, which may be written as a URL."""
    return Path(unquote(urlparse(source).path) if "://" in source else source)
