"""The command ``spectangle``: one word says what to do, the rest is Hydra's."""

import shlex
import sys
from collections.abc import Sequence
from importlib import import_module

from spectangle.commands.completion import completion_script
from spectangle.configs.arguments import CONF, SWEEPS
from spectangle.errors import SpectangleError, did_you_mean
from spectangle.threads import let_threads_sleep
from spectangle.version import VERSION

__all__ = ["COMMANDS", "main"]

let_threads_sleep()  # before anything loads torch

COMMANDS = {
    "train": ("train a model, or a sweep of them", "lambdas=first_pair | sweep=table1 sweep.workers=2"),
    "prepare": (
        "make a survey file from the files of an archive",
        "spectra=rvs/ labels.apogee=allStar.fits survey=my.h5",
    ),
    "report": ("read a sweep: leaderboard, Table 1, frontier, folds, differences", "sweep=runs/table1 kind=table1"),
    "predict": ("read labels of stars with a trained run", "run=RUN spectra=FILE out=stars.ecsv"),
    "generate": ("write spectra of the same stars with other labels", "run=RUN set.teff=6000 out=generated.h5"),
    "export": ("hand a trained model to others", "run=RUN out=exported"),
    "explore": ("look at a run in the browser", "run=RUN"),
    "dashboard": ("create or update the W&B dashboard", "entity=me project=spectangle"),
    "sync": ("send offline runs to W&B", "sweep=DIR"),
}


def main() -> None:
    """Run the command that the first word names; ``python -m spectangle`` is the same."""
    first, *rest = sys.argv[1:] or ["--help"]
    if first in COMMANDS:
        sys.argv = [f"spectangle {first}", *rest]
        return import_module(f"spectangle.commands.{first}").main()
    try:
        print(answer(first, rest))
    except SpectangleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def answer(word: str, rest: Sequence[str]) -> str:
    """What is said to a word that is no command.

    Raises:
        SpectangleError: The word is not known.
    """
    if word in ("-h", "--help", "help"):
        return overview()
    if word == "--version":
        return f"spectangle {VERSION}"
    if word == "--where":
        return f"configs: {CONF}\nsweeps:  {SWEEPS}"
    if word == "--completion":
        return completion_script(rest[0] if rest else "", list(COMMANDS))
    hint = did_you_mean(word, list(COMMANDS)) or f" There are: {', '.join(COMMANDS)}."
    raise SpectangleError(f"'{shlex.quote(word)}' is no command of spectangle.{hint}")


def overview() -> str:
    """The commands on one screen."""
    lines = [
        "Latent spaces of stellar spectra that lose some labels and keep others.",
        "",
        "spectangle COMMAND KEY=VALUE ...",
        "",
    ]
    lines += [
        f"  {name:<10} {what}\n             spectangle {name} {example}" for name, (what, example) in COMMANDS.items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            "spectangle COMMAND --help shows groups and keys, COMMAND --help KEY explains one; --version, --where "
            "(the configs lie)",
        ]
    )
