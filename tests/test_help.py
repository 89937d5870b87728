"""What a command says of itself: --help with the comments of conf/, and tab completion in a real bash."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, Command
from omegaconf import OmegaConf

from spectangle.commands.help import explained_keys, key_comments
from spectangle.commands.main import COMMANDS
from spectangle.configs.nested import flat
from spectangle.model.adversary import CHOICES
from spectangle.reports.make import KINDS

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


def unexplained(path: Path) -> list[str]:
    """Keys of a config that neither have a word of their own nor belong to a key that has one."""
    words = {key: comment for key, _, comment in explained_keys(path)}
    return [
        key
        for key in words
        if key.split(".")[0] not in ("defaults", "hydra")
        and key.split(".")[-1][:1] != "_"
        and not any(other.startswith(f"{key}.") for other in words)
        and not any(words.get(".".join(key.split(".")[:depth])) for depth in range(1, key.count(".") + 2))
    ]


def test_no_key_is_without_a_word():
    plain = ("lambdas", "experiment", "job_logging")  # labels are their own word; settings of groups, explained there
    files = [path for path in CONF.rglob("*.yaml") if path.parent.name not in plain]
    assert len(files) > 30
    bare = {path.relative_to(CONF).as_posix(): keys for path in files if (keys := unexplained(path))}
    assert not bare, "these keys of conf/ have no comment; --help shows the one behind the value"


@pytest.mark.parametrize(
    ("file", "choices"), [("adversary/default.yaml", CHOICES), ("report.yaml", {"kind": tuple(KINDS)})]
)
def test_every_word_that_a_key_can_be_is_in_its_comment(file, choices):
    said = {key: f"{value} {comment}" for key, value, comment in key_comments(CONF / file)}
    silent = {key: [w for w in words if not re.search(rf"\b{w}\b", said[key])] for key, words in choices.items()}
    assert not {key: words for key, words in silent.items() if words}, f"name them in the comment of conf/{file}"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (
            ["model"],
            "model.latent 25 numbers of the latent model.hidden [512, 256] widths of the encoder",
        ),
        (["lambdas=first_pair"], "lambdas.teff"),
        (["adversary.loss"], "adversary.loss categorical binary = eq. 2 as printed"),
        (["hydra/sweeper"], "sweep.retries 1 how often a configuration that failed is tried again"),
        (["-cn", "paper_grid", "-cd", "sweeps", "seed"], "seed 0 weights"),
        (["sweep"], "sweep=bins Do the number and the kind of bins of the lost labels matter?"),
        (["sweep=table1"], "trial_seeds: [0, 1, 2]"),
        (["sweep.pack"], "sweep.pack 1 runs that a worker trains together"),
        (["lambdas.vsini"], "lambdas.others 0.0 of every label of the survey that is not named"),
    ],
)
def test_a_group_an_option_or_a_key_is_explained(helped, words, wanted):
    assert wanted in helped("train", *words)


def test_what_is_not_there_is_a_sentence(helped):
    assert "'adversry' is neither a group nor a key of config. Did you mean 'adversary'?" in helped(
        "train", "adversry", code=1
    )
    assert "There is no sweep 'tabel1'. Did you mean 'table1'?" in helped("train", "sweep=tabel1", code=1)
    assert "model=huge does not exist. The options of model are: paper" in helped("train", "model=huge", code=1)


def test_an_option_of_a_group_below_another_that_is_not_there(monkeypatch, capsys):
    code, _, errors = Command(monkeypatch, capsys)("train", "-m", "hydra/launcher=slrm")
    assert code == 1 and "hydra/launcher=slrm does not exist. Did you mean 'slurm'? The options of hydra/l" in errors


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_and_is_known_to_completion(helped, name):
    assert f"spectangle {name}" in helped(name)


COMPLETE = """
eval "$(spectangle --completion @SHELL@)"
complete_line() {
  COMP_LINE="$1"; COMP_POINT=${#1}; COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _spectangle
  echo "${COMPREPLY[@]}"
}
complete_line "spectangle pre"
complete_line "spectangle train mod"
complete_line "spectangle train model="
complete_line "spectangle report kin"
"""
SCRIPT = """
eval "$(python train.py -sc install=bash)"
COMP_LINE="python train.py mod"; COMP_POINT=19; COMP_WORDS=(python train.py mod); COMP_CWORD=2
hydra_bash_completion
echo "${COMPREPLY[@]}"
"""


def shell(name: str, script: str) -> list[list[str]]:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [name, "-c", script], cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_shells_complete_commands_groups_options_and_keys(name):
    script = COMPLETE.replace("@SHELL@", name)
    if name == "zsh":  # words split as in bash, and arrays count from 0
        script = "setopt SH_WORD_SPLIT KSH_ARRAYS" + script
    first, second, third, fourth = (set(line) for line in shell(name, script))
    assert first >= {"prepare", "predict"} and second >= {"model=", "model."} and fourth >= {"kind="}
    assert third >= {"model=paper", "model=small", "model=tiny", "model=wide"}
    if name == "bash":  # zsh itself leaves out what does not begin as the word does
        assert first == {"prepare", "predict"} and fourth == {"kind="} and len(third) == 4


def test_bash_completes_the_script_of_the_clone():
    (found,) = shell("bash", SCRIPT)
    assert set(found) >= {"model=", "model."}


def test_a_word_that_is_no_command_is_a_sentence(monkeypatch, capsys):
    from spectangle.commands.main import main

    for words, said in (
        (["trian"], "Did you mean 'train'?"),
        (["--completion", "tcsh"], "There is no completion for 'tcsh'."),
    ):
        monkeypatch.setattr(sys, "argv", ["spectangle", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2 and said in capsys.readouterr().err
