"""Run an entry point in this process, as a user would on the command line."""

import os
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Command:
    """Run `predict`, `generate`, `export` or `explore`; returns the exit code, what was printed, and the errors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, name: str, *arguments: str) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        self.monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        self.capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = self.capsys.readouterr()
        return code, out, err


def leftovers(folder: Path) -> list[str]:
    """Part files below a folder."""
    return [os.path.relpath(path, folder) for path in folder.rglob("*.part")]
