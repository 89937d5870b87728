"""Run an entry point: Hydra composes the config, errors become sentences, the exit code tells the truth."""

import functools
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from spectangle.configs.arguments import CONF, SHORT, SWEEPS, label_key, named_sweep, resume_arguments, sweep_arguments
from spectangle.configs.nested import flat
from spectangle.configs.resolvers import register_resolvers
from spectangle.configs.targets import check_targets, targets
from spectangle.errors import SpectangleError, did_you_mean, root_cause
from spectangle.signals import Stopped, stopping_on
from spectangle.streams import unbreakable_output
from spectangle.threads import let_threads_sleep

__all__ = ["hydra_app"]

let_threads_sleep()  # this is the first import of every command
# by config: the node whose keys are the labels of the survey
OF_LABELS = {"config": "lambdas", "generate": "set", "prepare": "cuts.max_errors"}
HYDRA = {field.name for field in fields(HydraConf)}
OF_SWEEPER = "hydra.sweeper."  # which is written sweep. for short
FULL_ERROR = "HYDRA_FULL_ERROR"
EXPLAINED = (SpectangleError, HydraException, OmegaConfBaseException, YAMLError)


@dataclass
class Progress:
    """How far a command came: whether its function has begun, the error that it ended with, and what the user's
    HYDRA_FULL_ERROR is.
    """

    begun: bool = False
    failed: Exception | None = None
    full_error: str | None = None


def hydra_app(config_name: str = "config") -> Callable[[Callable[[DictConfig], object]], Callable[[], None]]:
    """Make a function of a DictConfig a command: ``hydra.main`` on ``conf/`` with errors that a user can act on.

    A :class:`SpectangleError` or an error of the config is printed as one sentence (exit code 1), Ctrl-C exits with
    130, SIGTERM with 143; any other exception keeps its traceback. ``HYDRA_FULL_ERROR=1`` shows every traceback.
    """

    def decorate(function: Callable[[DictConfig], object]) -> Callable[[], None]:
        register_resolvers()
        progress = Progress()

        @functools.wraps(function)
        def job(cfg: DictConfig) -> object:
            progress.begun = True
            try:
                given: Any = OmegaConf.to_container(HydraConfig.get().overrides, resolve=False)  # as they were typed
                refuse_unknown_keys(config_name, given["task"] + given["hydra"])
                check_targets(cfg)
                with full_errors(progress.full_error):  # as it was given: what the command starts inherits it
                    return function(cfg)
            except EXPLAINED as error:
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    raise
                progress.failed = error  # Hydra would print the overrides above our sentence

        def command() -> None:
            hydra.main(str(CONF), config_name, execution_whitelist=targets())(job)()

        def run() -> None:
            progress.begun, progress.failed = False, None
            progress.full_error = os.environ.get(FULL_ERROR)
            with unbreakable_output():
                if {"--help", "-h"} & set(sys.argv[1:]):
                    command_or_sentence(lambda: show_help(config_name, function), config_name, progress)
                else:
                    command_or_sentence(lambda: (spell_out(config_name), command()), config_name, progress)

        return functools.update_wrapper(run, function)  # pyright: ignore  # it has no argument, as hydra.main's have none

    return decorate


def command_or_sentence(command: Callable[[], object], config_name: str, progress: Progress) -> None:
    """Run a command; end the process with a sentence where its error has one, and with the exit code that says how it
    ended.
    """
    full = progress.full_error not in (None, "", "0")
    try:
        with stopping_on(signal.SIGTERM, signal.SIGHUP), full_errors("1"):  # else Hydra prints and exits first
            command()
        if progress.failed:
            raise progress.failed
    except KeyboardInterrupt:
        sys.exit(130)
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    except EXPLAINED as error:
        if full:
            raise
        print(f"error: {explain(error, config_name)}", file=sys.stderr)
        sys.exit(1)
    except (TypeError, ValueError, AttributeError, OSError) as error:
        if full or progress.begun or not composing(error):
            raise
        print(f"error: Hydra cannot make a config of {shlex.join(sys.argv[1:])}: {error}", file=sys.stderr)
        sys.exit(1)


@contextmanager
def full_errors(value: str | None) -> Iterator[None]:
    """Set HYDRA_FULL_ERROR for a while (None: take it away)."""
    before = os.environ.get(FULL_ERROR)
    try:
        _set(value)
        yield
    finally:
        _set(before)


def _set(value: str | None) -> None:
    if value is None:
        os.environ.pop(FULL_ERROR, None)
    else:
        os.environ[FULL_ERROR] = value


def spell_out(config_name: str) -> None:
    """Write the command line as Hydra takes it: named sweeps, short keys, labels, a run to go on with."""
    words = named_sweep(sys.argv[1:]) if config_name == "config" else sys.argv[1:]
    words = sweep_arguments(resume_arguments(words))
    if config_name in OF_LABELS:
        words = [label_key(word, OF_LABELS[config_name]) for word in words]
    sys.argv[1:] = words


def show_help(config_name: str, function: Callable[[DictConfig], object]) -> None:
    """Print what the comments of conf/ say of a command, whose file begins with a summary."""
    from spectangle.commands.help import command_help
    from spectangle.console import print_table

    summary = (function.__globals__.get("__doc__") or function.__name__).strip().splitlines()[0]
    print_table(command_help(config_name, summary, sys.argv[1:]))


def refuse_unknown_keys(config_name: str, overrides: Sequence[str]) -> None:
    """Refuse keys that a plus adds where no config has anything: nobody would read them.

    Below a node that is there a key may be added (+trainer.deterministic=true); what a constructor does not take is
    refused before it is called.

    Raises:
        SpectangleError: A key's first part is no key of the command and no group, or its second none of Hydra's.
    """
    known = _top_keys(config_name)
    for key in (override.lstrip("+").partition("=")[0] for override in overrides if override.startswith("+")):
        first, second = (*re.split(r"[.@/]", key), "")[:2]
        names, name = (HYDRA, second) if first == "hydra" else (known, first)
        if name not in names:
            hint = did_you_mean(name, sorted(names))
            raise SpectangleError(
                f"'{key}' was added with a plus, and nothing reads it.{hint} `--cfg job` shows every key."
            )


def _top_keys(config_name: str) -> set[str]:
    """The groups, and the first parts of the keys of a command's own config and of the groups that are global."""
    files = [
        CONF / f"{config_name}.yaml",
        *(path for path in CONF.glob("*/*.yaml") if "@package _global_" in path.read_text()[:200]),
    ]
    keys = {
        str(key)
        for path in files
        if path.is_file()
        for key in OmegaConf.to_container(OmegaConf.load(path), resolve=False) or ()
    }
    return (keys | {path.name for path in CONF.iterdir() if path.is_dir()}) - {"defaults"}


def composing(error: BaseException) -> bool:
    """Whether an error came from inside Hydra or OmegaConf, while the config was put together."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").startswith(("hydra.", "omegaconf"))


def explain(error: Exception, config_name: str) -> str:
    """Say what was wrong with the command line, with the nearest existing key or group option."""
    root = root_cause(error)
    if isinstance(root, SpectangleError):
        return str(root)
    text = str(error)
    if isinstance(error, MissingConfigException) and (option := re.search(r"find '(\w[\w/]*)/([^/']+)'", text)):
        group, name = option.groups()
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)  # those of a folder given with -cd as well
        if options:
            return (
                f"{group}={name} does not exist.{did_you_mean(name, options)} The options of {group} are: "
                f"{', '.join(options)}."
            )
    if key := re.search(r"Could not override '([^']+)'", text):
        if key[1].startswith(OF_SWEEPER) and (sentence := _no_sweep_key(key[1].removeprefix(OF_SWEEPER))):
            return sentence
        known = _known_keys(config_name)
        if key[1] in known or key[1].startswith("hydra."):
            return " ".join(text.split())  # the key is there, the reason is another one
        return f"There is no config key '{key[1]}'.{did_you_mean(key[1], known)} `--cfg job` shows every key."
    if isinstance(error, OverrideParseException):
        reason = " ".join(line.strip() for line in text.splitlines()[1:] if line.strip() and "://" not in line)
        return (
            f"'{error.override}' is no override: {reason}. Overrides are written key=value; text with commas, "
            "brackets or spaces is quoted twice."
        )
    if primary := re.search(r"Cannot find primary config '([^']+)'", text):
        return missing_primary(primary[1], text)
    return " ".join(
        line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Set the environment")
    )


def _no_sweep_key(name: str) -> str:
    """Why no sweep takes ``sweep.NAME``, or this command does not; empty where the key is there and its value wrong."""
    known = [str(key) for key in OmegaConf.load(CONF / "hydra" / "sweeper" / "spectangle.yaml") if key != "_target_"]  # pyright: ignore
    if name.partition(".")[0] not in known:
        return f"There is no key sweep.{name}.{did_you_mean(name, known)} `--help sweep` lists the keys of sweeps."
    if "-cn" in sys.argv:  # a sweep is named
        return ""
    key = name if f"{name}=" in SHORT else f"sweep.{name}"
    return (
        f"{key} is a key of sweeps, and this is none: name one (sweep=table1), or vary something with -m "
        "hydra/sweeper=spectangle."
    )


def missing_primary(name: str, text: str) -> str:
    """Say which configs there are in the folders that were searched, and among the sweeps."""
    folders = [Path(place) for place in re.findall(r"path=file://(\S+)", text)]
    hint = "" if "provider=command-line" in text else " Sweeps are named by sweep=NAME."
    folders = [folder for folder in folders if folder != CONF] or [CONF, SWEEPS]
    names = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    return f"There is no config '{name}'.{did_you_mean(name, names)}{hint} There are: {', '.join(names)}."


def _known_keys(config_name: str) -> list[str]:
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF)):
        config = OmegaConf.to_container(compose(config_name), resolve=False)
    parts = [key.split(".") for key in flat(config)]
    keys = dict.fromkeys(".".join(names[:depth]) for names in parts for depth in range(1, len(names) + 1))
    return [*keys, *(path.name for path in CONF.iterdir() if path.is_dir())]
