"""The command ``spectangle``: one word says what to do, the rest is Hydra's."""

import shlex
import sys
from importlib import import_module

from spectangle.configs.arguments import CONF, SWEEPS
from spectangle.errors import did_you_mean
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
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        sys.exit(0 if words else 2)
    if words[0] in ("--version", "--where"):
        print(f"spectangle {VERSION}" if words[0] == "--version" else f"configs: {CONF}\nsweeps:  {SWEEPS}")
        return
    name = words[0]
    if name not in COMMANDS:
        hint = did_you_mean(name, list(COMMANDS)) or f" There are: {', '.join(COMMANDS)}."
        print(f"error: '{shlex.quote(name)}' is no command of spectangle.{hint}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"spectangle {name}", *words[1:]]
    import_module(f"spectangle.commands.{name}").main()


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
