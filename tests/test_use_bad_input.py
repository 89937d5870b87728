"""What goes wrong with predict, generate, export and explore ends in one sentence, exit code 1, and no file."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Command

from spectangle.errors import SpectangleError

COMMANDS = {"predict": "stars.ecsv", "generate": "new.h5", "export": "model", "explore": "page.html"}


@pytest.fixture
def refuse(monkeypatch, capsys, tmp_path: Path):
    """Run a command that must be refused: the sentence, checked for its form."""
    command = Command(monkeypatch, capsys)

    def run(name: str, *arguments: str) -> str:
        before = files(tmp_path)
        code, _, err = command(name, *arguments)
        assert code == 1 and "Traceback" not in err
        sentence = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(sentence) == 1 and len(sentence[0].split()) > 8
        assert files(tmp_path) == before
        return sentence[0]

    return run


def files(folder: Path) -> list[Path]:
    """All files below a folder, but what a run keeps for itself."""
    return sorted(path for path in folder.rglob("*") if "derived" not in path.parts)


def out(name: str, folder: Path) -> str:
    return f"{'save' if name == 'explore' else 'out'}={folder / COMMANDS[name]}"


def test_a_traceback_is_for_those_who_ask_for_it(refuse, monkeypatch, capsys, tmp_path: Path):
    """What a command asks Hydra for stayed in the environment, for all that came after it and all that it started."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    refuse("predict", f"run={tmp_path}", out("predict", tmp_path), "spectra=x.fits")
    assert "HYDRA_FULL_ERROR" not in os.environ
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SpectangleError, match="is not a run folder"):
        Command(monkeypatch, capsys)("predict", f"run={tmp_path}", out("predict", tmp_path), "spectra=x.fits")


@pytest.mark.parametrize("name", COMMANDS)
def test_no_run(name: str, refuse, tmp_path: Path, toy_survey: Path):
    more = [f"spectra={toy_survey}"] if name == "predict" else []
    assert "run is empty" in refuse(name, out(name, tmp_path), *more)
    assert "is not a run folder" in refuse(name, f"run={tmp_path / 'nothing'}", out(name, tmp_path), *more)


def test_a_folder_with_runs_in_it(refuse, tmp_path: Path, toy_survey: Path, toy_runs):
    """A configuration whose seeds are runs, as the leaderboard names it."""
    for seed in (0, 1):
        shutil.copytree(toy_runs[0] / ".hydra", tmp_path / "c1" / f"seed={seed}" / ".hydra")
    sentence = refuse("predict", f"run={tmp_path / 'c1'}", out("predict", tmp_path), f"spectra={toy_survey}")
    assert f"There are runs in it: {tmp_path / 'c1' / 'seed=0'}, {tmp_path / 'c1' / 'seed=1'}." in sentence


def test_a_run_that_read_no_labels(refuse, tmp_path: Path, toy_survey: Path, toy_runs):
    run = shutil.copytree(toy_runs[0], tmp_path / "run", ignore=shutil.ignore_patterns("derived"))
    (run / "regressors" / "latent.skops").unlink()
    sentence = refuse("predict", f"run={run}", out("predict", tmp_path), f"spectra={toy_survey}")
    assert "is finished: train again" in sentence and "resume=" not in sentence


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unfinished_run(name: str, refuse, tmp_path: Path, toy_survey: Path, toy_runs):
    run = tmp_path / "run"
    shutil.copytree(toy_runs[0], run)
    (run / "metrics.json").unlink()
    more = [f"spectra={toy_survey}"] if name == "predict" else []
    assert "resume=" in refuse(name, f"run={run}", out(name, tmp_path), *more)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_survey_that_is_gone(name: str, refuse, tmp_path: Path, toy_survey: Path, toy_runs):
    run = tmp_path / "run"
    shutil.copytree(toy_runs[0], run, ignore=shutil.ignore_patterns("derived"))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["survey"]["path"] = str(tmp_path / "gone.h5")
    (run / "manifest.json").write_text(json.dumps(manifest))
    more = [f"spectra={toy_survey}"] if name == "predict" else []
    assert "survey=FILE" in refuse(name, f"run={run}", out(name, tmp_path), *more)


@pytest.mark.parametrize(
    ("name", "missing"), [("predict", "out is empty"), ("generate", "out is empty"), ("export", "out is empty")]
)
def test_no_output(name: str, missing: str, refuse, toy_runs, toy_survey: Path):
    more = [f"spectra={toy_survey}"] if name == "predict" else []
    assert missing in refuse(name, f"run={toy_runs[0]}", *more)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_cannot_be_written(name: str, refuse, tmp_path: Path, toy_survey: Path, toy_runs):
    (tmp_path / "file").write_text("in the way")
    more = [f"spectra={toy_survey}"] if name == "predict" else []
    assert "written" in refuse(name, f"run={toy_runs[0]}", out(name, tmp_path / "file"), *more)


def test_outputs_of_an_unknown_kind(refuse, tmp_path: Path, toy_survey: Path, toy_runs):
    run = f"run={toy_runs[0]}"
    assert ".ecsv, .fits, .vot, .parquet" in refuse(
        "predict", run, f"spectra={toy_survey}", f"out={tmp_path / 'stars.xls'}"
    )
    assert "survey file" in refuse("generate", run, f"out={tmp_path / 'new.csv'}")
    assert ".html" in refuse("explore", run, f"save={tmp_path / 'page.pdf'}")


def test_spectra_that_do_not_fit(refuse, tmp_path: Path, toy_runs):
    run, to = f"run={toy_runs[0]}", f"out={tmp_path / 'stars.ecsv'}"
    assert "spectra is empty" in refuse("predict", run, to)
    assert "names no spectra" in refuse("predict", run, to, f"spectra={tmp_path / 'none.csv'}")
    np.savez(tmp_path / "short.npz", flux=np.ones((3, 30)), wavelength=np.linspace(846, 846.8, 30))
    assert "the model needs" in refuse("predict", run, to, f"spectra={tmp_path / 'short.npz'}")
    np.savez(tmp_path / "odd.npz", flux=np.ones((3, 30)), wavelength=np.linspace(846, 848, 31))
    assert "flux (3, 30)" in refuse("predict", run, to, f"spectra={tmp_path / 'odd.npz'}")
    np.savez(tmp_path / "nothing.npz", flux=np.full((3, 60), np.nan), wavelength=np.linspace(845.9, 847.3, 60))
    assert "every pixel" in refuse("predict", run, to, f"spectra={tmp_path / 'nothing.npz'}")
    np.save(tmp_path / "bare.npy", np.ones((3, 40)))
    assert "wavelength=FILE.npy" in refuse("predict", run, to, f"spectra={tmp_path / 'bare.npy'}")
    (tmp_path / "broken.h5").write_text("no HDF5")
    assert "HDF5" in refuse("predict", run, to, f"spectra={tmp_path / 'broken.h5'}")


def test_numbers_that_cannot_be(refuse, tmp_path: Path, toy_survey: Path, toy_runs):
    known = [f"run={toy_runs[0]}", f"spectra={toy_survey}", f"out={tmp_path / 'stars.ecsv'}"]
    assert "coverage=1.5" in refuse("predict", *known, "coverage=1.5")
    assert "needs one run" in refuse("predict", f"run=[{toy_runs[0]},{toy_runs[1]}]", *known[1:], "latents=true")
    assert "Did you mean 'latents'" in refuse("predict", *known, "latent=true")


def test_labels_that_cannot_be_set(refuse, tmp_path: Path, toy_runs):
    known = [f"run={toy_runs[0]}", f"out={tmp_path / 'new.h5'}"]
    assert "Did you mean 'teff'" in refuse("generate", *known, "set.tef=5000")
    assert "its labels are teff, logg, m_h, alpha_fe." in refuse("generate", *known, "set.vsini=5")
    for value in ("hot", "nan", "inf", "[]", "4000:6000:1e-6"):
        assert "no number, list or range" in refuse("generate", *known, f"set.teff={value}")
    assert "at most 1,000,000" in refuse("generate", *known, "set.teff=4000:6000:1", "set.logg=0:5:0.001")


@pytest.mark.parametrize("n_stars", ["0", "-5", "1.5", "many"])
def test_numbers_of_stars_that_cannot_be(n_stars: str, refuse, tmp_path: Path, toy_runs):
    assert f"n_stars={n_stars}: how many stars" in refuse(
        "generate", f"run={toy_runs[0]}", f"out={tmp_path / 'new.h5'}", f"n_stars={n_stars}"
    )


def test_spectra_without_a_pixel_are_no_parents(refuse, tmp_path: Path, toy_runs):
    np.savez(tmp_path / "nothing.npz", flux=np.full((3, 40), np.nan), wavelength=846 + 0.03 * np.arange(40))
    known = [f"run={toy_runs[0]}", f"out={tmp_path / 'new.h5'}"]
    assert "nothing to change" in refuse("generate", *known, f"spectra={tmp_path / 'nothing.npz'}")


@pytest.mark.parametrize("name", COMMANDS)
def test_keys_that_nothing_reads_are_refused(name: str, refuse, tmp_path: Path, toy_survey: Path, toy_runs):
    more = [f"spectra={toy_survey}"] if name == "predict" else []
    sentence = refuse(name, f"run={toy_runs[0]}", out(name, tmp_path), *more, "+runn=5", "+spectre.a=5")
    assert "'runn' was added with a plus, and nothing reads it. Did you mean 'run'?" in sentence


def test_runs_of_different_splits_make_no_ensemble(refuse, tmp_path: Path, toy_survey: Path, toy_runs):
    other = tmp_path / "other"
    shutil.copytree(toy_runs[1], other)
    config = other / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("split_seed: 0", "split_seed: 1"))
    assert "differ in seed= only" in refuse(
        "predict", f"run=[{toy_runs[0]},{other}]", f"spectra={toy_survey}", f"out={tmp_path / 'stars.ecsv'}"
    )


def test_a_port_that_is_taken(refuse, toy_runs):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port={port + 1}" in refuse("explore", f"run={toy_runs[0]}", f"port={port}")
