"""What works where nothing but the package's own dependencies is installed, as after ``make train``."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

WITHOUT = """
import json, sys
from importlib.machinery import PathFinder

absent, find = set(json.loads(sys.argv.pop(1))), PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in absent else find(name, *rest)
from spectangle.commands.main import main
main()
"""


def of_extras() -> list[str]:
    """Top-level modules of the packages that only extras bring."""
    needed = [line.partition(";") for line in metadata.requires("spectangle") or []]
    own, extra = (
        {re.split(r"[^\w.-]", name)[0].lower() for name, _, marker in needed if ("extra" in marker) == optional}
        for optional in (False, True)
    )
    optional = extra - own
    modules = {
        module
        for module, owners in metadata.packages_distributions().items()
        if {owner.lower() for owner in owners} & optional
    }
    return sorted(modules - {"pytest", "hydra_plugins"})


def call(folder: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(of_extras()), *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_there_is_something_to_do_without():
    assert {"bokeh", "onnx", "astroquery", "specutils"} <= set(of_extras())
    assert not {"pyarrow", "safetensors", "torch", "wandb", "astropy"} & set(of_extras())


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["predict", "spectra={survey}", "out=labels.parquet"], "labels.parquet"),
        (["generate", "set.m_h=-0.5", "out=generated.h5"], "generated.h5"),
        (["export", "onnx=false", "out=exported"], "exported/model.safetensors"),
    ],
)
def test_a_run_is_used(toy_runs: list[Path], toy_survey: Path, tmp_path: Path, words: list[str], made: str):
    command, *options = (word.format(survey=toy_survey) for word in words)
    call(tmp_path, command, f"run={toy_runs[0]}", *options)
    assert (tmp_path / made).exists()


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["explore"], "app"),
        (["export", "out=exported"], "export"),
        (["dashboard", "entity=me", "project=p", "save=w.json"], "dashboards"),
    ],
)
def test_what_needs_an_extra_names_it(toy_runs: list[Path], tmp_path: Path, words: list[str], extra: str):
    run = [] if words[0] == "dashboard" else [f"run={toy_runs[0]}"]
    assert f"pip install 'spectangle[{extra}]'" in call(tmp_path, words[0], *run, *words[1:], code=1)
