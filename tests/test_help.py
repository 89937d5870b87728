"""What a command says of itself: --help with the comments of conf/, and tab completion in a real bash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, Command
from omegaconf import OmegaConf

from spectangle.commands.help import key_comments
from spectangle.commands.main import COMMANDS
from spectangle.configs.nested import flat

CONF = ROOT / "conf"


@pytest.fixture
def helped(monkeypatch, capsys):
    command = Command(monkeypatch, capsys)

    def call(name: str, *words: str, code: int = 0) -> str:
        found, out, err = command(name, *words, "--help")
        assert found == code, err
        return " ".join((out + err).split())

    return call


def test_the_groups_of_a_command_are_shown_with_their_comments_and_no_others(helped):
    text = helped("train")
    assert "model the autoencoder paper*, small, tiny, wide" in text and "synthetic*" in text
    assert "seed 0 weights, order of stars" in text and "hydra/sweeper" in text
    assert "gaia_rvs" not in text and "@package" not in text  # a group of spectangle prepare
    for line in (CONF / "config.yaml").read_text().partition("defaults:\n")[2].splitlines():
        assert not line.startswith("  - ") or line.startswith(("  - override", "  - _self_")) or "#" in line, (
            f"a group without a comment: {line}"
        )


def test_every_key_of_every_group_can_be_reached(helped):
    for path in sorted(CONF.glob("*/*.yaml")):
        keys = {
            key
            for key in flat(OmegaConf.to_container(OmegaConf.load(path)))
            if key.split(".")[-1][:1] != "_" and not key.startswith("defaults")
        }
        known = {key for key, _, _ in key_comments(path)}
        assert all(any(key == one or key.startswith(f"{one}.") for one in known) for key in keys - {"", "{}"}), path
    for group in sorted(path.parent.name for path in CONF.glob("*/default.yaml")):
        assert f"Keys of {group}=default" in helped("train", group)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["model"], "model.latent 25 model.hidden [512, 256] model.conditioning observed Fig. 6; synthetic = Fig. 1"),
        (["lambdas=first_pair"], "lambdas.teff"),
        (["adversary.loss"], "adversary.loss categorical binary = eq. 2 as printed"),
        (["hydra/sweeper"], "sweep.retries 1 how often a configuration that failed is tried again"),
        (["-cn", "paper_grid", "-cd", "sweeps", "seed"], "seed 0 weights"),
    ],
)
def test_a_group_an_option_or_a_key_is_explained(helped, words, wanted):
    assert wanted in helped("train", *words)


def test_what_is_not_there_is_a_sentence(helped):
    assert "'adversry' is neither a group nor a key of config. Did you mean 'adversary'?" in helped(
        "train", "adversry", code=1
    )
    assert "model=huge does not exist. The options of model are: paper" in helped("train", "model=huge", code=1)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_and_is_known_to_completion(helped, name):
    assert f"spectangle {name}" in helped(name)


COMPLETE = """
eval "$(python train.py -sc install=bash)"
complete_line() {
  COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  hydra_bash_completion
  echo "${COMPREPLY[@]}"
}
complete_line "python train.py mod"
complete_line "python train.py model="
complete_line "python train.py seed"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_groups_options_and_keys():
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", COMPLETE], cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=200
    )
    first, second, third = done.stdout.splitlines()
    assert set(first.split()) >= {"model=", "model."}, done.stderr
    assert set(second.split()) == {"model=paper", "model=small", "model=tiny", "model=wide"} and third.split() == [
        "seed="
    ]
