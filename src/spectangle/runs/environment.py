"""What a run was made with: versions, commit, command, machine."""

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from spectangle.files import redacted
from spectangle.version import VERSION

__all__ = ["command_again", "command_line", "environment"]

PACKAGES = ("torch", "lightning", "hydra-core", "omegaconf", "optuna", "scikit-learn", "numpy", "h5py")


def command_again(words: Sequence[str]) -> list[str]:
    """The command line that starts the program of some ``sys.argv`` again, from any folder."""
    program, *rest = words
    again = ["-m", *program.split()] if program.startswith("spectangle ") else [str(Path(program).resolve())]
    return [sys.executable, *again, *rest]


def command_line() -> str:
    """The command line of this process, as it would be typed."""
    return " ".join([Path(sys.argv[0]).name, shlex.join(sys.argv[1:])]).strip()


def environment() -> dict[str, Any]:
    """Facts of this process for a manifest; passwords in its command line are left out."""
    return {
        "command": redacted(command_line()),
        "spectangle": VERSION,
        "git": _git(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "host": platform.node(),
        "platform": platform.platform(),
    }


def _git() -> dict[str, Any]:
    def ask(*words: str) -> str | None:
        answer = subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True)
        return answer.stdout.strip() if answer.returncode == 0 else None

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}
    except OSError:
        return {"commit": None, "dirty": None}
