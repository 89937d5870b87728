"""prepare.py as a command: from archive files to a survey, and on to a trained model; its config; its exit codes."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hydra
import numpy as np
import pytest
from archive_files import Stars, write_apogee, write_bulk, write_galah
from commands import Command, run_train
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from spectangle.configs.targets import targets
from spectangle.survey.file import Survey

ROOT = Path(__file__).resolve().parents[1]
ARCHIVES = {
    "gaia_rvs": ["spectra=x"],
    "gaia_datalink": ["ids=x"],
    "plain": ["spectra=x", "labels_table=y"],
    "gandalf": ["folder=x"],
    "spectra1d": ["spectra=x", "labels.table=y"],
    "miles": ["folder=x"],
}


def command(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "spectangle", name, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Bulk files of 120 stars, 100 of them in APOGEE and 40 in GALAH."""
    folder = tmp_path_factory.mktemp("archive files")
    stars = Stars(120, n_pixels=601, seed=2)
    (folder / "rvs").mkdir()
    for part in range(3):
        piece = Stars.__new__(Stars)
        piece.ids, piece.flux, piece.error = (
            values[part * 40 : part * 40 + 40] for values in (stars.ids, stars.flux, stars.error)
        )
        write_bulk(folder / "rvs" / f"RvsMeanSpectrum_{part:06d}.csv.gz", piece)
    for name, which, write in (("apogee", slice(0, 100), write_apogee), ("galah", slice(80, 120), write_galah)):
        piece = Stars.__new__(Stars)
        piece.ids, piece.g, piece.labels = (
            stars.ids[which],
            stars.g[which],
            {key: values[which] for key, values in stars.labels.items()},
        )
        write(folder / f"{name}.fits", piece, *([folder / "galah_gaia.fits"] if name == "galah" else []))
    return folder


def test_archive_files_to_survey_to_metrics(world, monkeypatch):
    catalogues = ["labels.apogee=apogee.fits", "labels.galah=galah.fits", "labels.galah_gaia=galah_gaia.fits"]
    done = command("prepare", "spectra=rvs", *catalogues, "survey=my.h5", "workers=2", folder=world)
    assert done.returncode == 0, done.stderr
    assert "64,305" in done.stdout and "spectangle train data=survey data.path=my.h5" in done.stdout
    assert sorted(path.name for path in world.iterdir() if path.name.startswith("my")) == ["my.h5", "my.html"]
    with Survey(world / "my.h5", verify=True) as survey:
        assert len(survey) == 120 and set(survey.labels) == {"teff", "logg", "m_h", "alpha_fe"}
        assert "spectangle prepare spectra=rvs" in survey.attributes["created_by"]
        assert np.unique(survey.column("label_origin")).tolist() == [b"APOGEE DR17", b"GALAH DR3"]
    monkeypatch.chdir(world)
    quick = ["model=tiny", "trainer.max_epochs=2", "probes=quick", "callbacks.figures=null"]
    run_train("data=survey", "data.path=my.h5", *quick, "hydra.run.dir=run")
    metrics = json.loads((world / "run" / "metrics.json").read_text())
    assert np.isfinite(metrics["test/latent/teff/mae"])


@pytest.fixture
def prepare(world, monkeypatch, capsys):
    """The command in this process, in the folder of the files."""
    monkeypatch.chdir(world)
    run = Command(monkeypatch, capsys)
    return lambda *arguments: run("prepare", *arguments)


def test_bad_input_is_one_sentence_and_exit_code_1(world, prepare):
    code, _, errors = prepare("spectra=rvs", "labels.apogee=galah.fits", "survey=none.h5")
    assert code == 1
    assert re.search(r"^error: galah\.fits has no column .*\.$", errors, re.MULTILINE)
    assert "Traceback" not in errors and not (world / "none.h5").exists()


@pytest.mark.parametrize(
    "override",
    [
        "archive.columns.flux=a",
        "labels.columns={teff: a}",
        "cuts.max_errors.teff=1",
        "labels.units={teff: K}",
        "cuts.label_ranges={teff: [1, 2]}",
    ],
)
def test_dictionaries_can_be_overridden(override):
    with hydra.initialize_config_dir(str(ROOT / "conf")):
        hydra.compose("prepare", ["spectra=x", override])


def test_what_is_missing_is_named(prepare):
    code, _, errors = prepare("labels.apogee=apogee.fits")
    assert code == 1 and "error: 'spectra' is not given; name it: spectangle prepare spectra=..." in errors


def test_errors_cross_process_borders(world):
    (world / "broken").mkdir()
    content = (world / "rvs" / "RvsMeanSpectrum_000001.csv.gz").read_bytes()
    for i in range(2):
        (world / "broken" / f"part_{i}.csv.gz").write_bytes(content[: len(content) // 2])
    # more bytes than a group holds, so that two processes share the work
    done = command(
        "prepare", "spectra=broken", "labels.apogee=apogee.fits", "survey=none.h5", "workers=2", folder=world
    )
    assert done.returncode == 1
    assert "part_" in done.stderr and "truncated" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("archive", ARCHIVES)
def test_every_key_is_a_constructor_argument(archive):
    with hydra.initialize_config_dir(str(ROOT / "conf")):
        config = hydra.compose("prepare", [f"archive={archive}", *ARCHIVES[archive]])
    nodes = [config.archive, config.labels, config.cuts, config.pixels]
    nodes += [node for node in config.archive.values() if isinstance(node, DictConfig) and "_target_" in node]
    for node in nodes:
        keys = set(node) - {"_target_"}
        assert keys == set(inspect.signature(get_class(node._target_)).parameters), node._target_
        instantiate(node, _convert_="all", _execution_whitelist_=targets())
    from spectangle.archives import prepare

    rest = set(config) - {"spectra", "ids", "folder", "labels_table"}
    assert rest == set(inspect.signature(prepare).parameters)


def test_every_archive_is_tested_here():
    assert set(ARCHIVES) == {path.stem for path in (ROOT / "conf" / "archive").glob("*.yaml")}
    assert OmegaConf.load(ROOT / "conf" / "prepare.yaml").workers <= 2


def test_gandalf_by_command(world, prepare):
    stars = Stars(30, n_pixels=200)
    folder = world / "gandalf"
    folder.mkdir()
    arrays = {
        "X": stars.flux[:, :190],
        "params": np.column_stack(list(stars.labels.values())),
        "axis_labels": stars.wavelength[:190] * 10,
    }
    for name, values in (arrays | {"ids": np.array([f"2M{i}" for i in range(30)])}).items():
        np.save(folder / f"{name}.npy", values)
    code, _, errors = prepare("archive=gandalf", "folder=gandalf", "survey=g.h5", "archive.wavelength_unit=Angstrom")
    assert code == 0, errors
    with Survey(world / "g.h5") as survey:
        assert len(survey) == 30 and not survey.has_flux_error
        np.testing.assert_allclose(survey.flux(), stars.flux[:, :190])
        np.testing.assert_allclose(survey.wavelength, stars.wavelength[:190])


@pytest.mark.parametrize(("word", "key"), [("+archive.foldr=x", "archive.foldr"), ("+cuts.gmin=3", "cuts.gmin")])
def test_what_nothing_takes_is_a_sentence(monkeypatch, capsys, word, key):
    code, _, errors = Command(monkeypatch, capsys)("prepare", "spectra=x", word)
    assert code == 1 and f"error: There is no key {key}: nothing would read it." in errors


@pytest.mark.parametrize(
    ("archive", "word", "sentence"),
    [
        ("miles", "labels.table=doesnotexist.csv", "the archive Miles brings .* Write archive=spectra1d .* instead"),
        ("miles", "labels.keep_columns=[sptype]", ".sptype. came, .* Write archive=spectra1d"),
        ("plain", "labels.table=t.csv", "the archive Plain brings .* Write labels_table=... instead"),
        ("plain", "labels.columns={teff: T}", "{teff: T} came, .* Write archive.columns=... instead"),
        ("plain", "labels.units={teff: kK}", "Write archive.units=... instead"),
        ("plain", "labels.keep_columns=[a, b]", "[[]a, b. came, .* Write archive.keep_columns=..."),
        ("gandalf", "labels.units={teff: kK}", "the archive Gandalf brings .* Write archive.units=... instead"),
        ("gandalf", "labels.table=t.csv", "it would not be read. Leave it out"),
        ("spectra1d", "labels.apogee=a.fits", "the archive Spectra1D brings .* Leave it out"),
        ("spectra1d", "labels.id_column=star", "Write archive.id_column=... instead"),
        ("gaia_rvs", "labels.apogee_release=DR16", "came without labels.apogee, .* Give labels.apogee=..., or leave"),
        ("gaia_rvs", "labels.units={teff: kK}", "came without labels.table, .* Give labels.table=..., or leave"),
        ("gaia_datalink", "labels.columns={teff: T}", "came without labels.table"),
    ],
)
def test_options_of_labels_that_nothing_reads_are_refused(archive, word, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # where there is none of the files: nothing is read before
    code, _, errors = Command(monkeypatch, capsys)("prepare", f"archive={archive}", *ARCHIVES[archive], word)
    said = " ".join(errors.split())
    assert code == 1 and re.search(f"error: {word.split('=')[0]}=.*{sentence}", said), errors
