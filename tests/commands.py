"""Run an entry point in this process, as a user would on the command line."""

import os
import sys
from pathlib import Path

import pytest

from spectangle.commands.main import main

ROOT = Path(__file__).parents[1]


class Command:
    """Run `predict`, `generate`, `export` or `explore`; returns the exit code, what was printed, and the errors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, name: str, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = _run(self.monkeypatch, name, *arguments)
        out, err = self.capsys.readouterr()
        return code, out, err


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["spectangle", *words])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def run_train(*arguments: str, code: int = 0) -> None:
    """Train for a fixture that several tests share: a process of its own would first load torch for some seconds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert _run(monkeypatch, "train", *arguments) == code


def leftovers(folder: Path) -> list[str]:
    """Part files below a folder."""
    return [os.path.relpath(path, folder) for path in folder.rglob("*.part")]
