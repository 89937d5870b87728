"""The survey file: what is written is read back, and what breaks the format is refused with its mend."""

import shutil
import subprocess
import sys
from pathlib import Path

import astropy.units as u
import h5py
import numpy as np
import pytest
from astropy.table import MaskedColumn, Table
from conftest import UNITS, write_toy_survey
from small_disk import small_disk

from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey
from spectangle.survey.writer import SurveyWriter

WAVELENGTH = 846 + 0.03 * np.arange(8)


def write(path, chunks, n=30, **changes):
    random = np.random.default_rng(1)
    flux = random.normal(1, 0.01, (n, 8)).astype(np.float32)
    ids = 2**62 + np.arange(n)
    snr = random.uniform(10, 90, n)
    with SurveyWriter(path, WAVELENGTH, {"teff": "K"}, "toy", "1", "tests") as writer:
        for rows in np.array_split(np.arange(n), chunks):
            writer.append(
                ids[rows],
                flux[rows],
                {"teff": 5000 + rows},
                columns={"snr": snr[rows], "field": np.array(["a", "b"])[rows % 2]},
            )
    return flux, ids


def test_what_is_written_is_read_back_in_pieces(tmp_path):
    flux, ids = write(tmp_path / "a.h5", chunks=4)
    with Survey(tmp_path / "a.h5", verify=True) as survey:
        assert np.array_equal(survey.source_id, ids)
        assert np.array_equal(np.concatenate([survey.flux(*piece) for piece in survey.chunks(7)]), flux)
        assert survey.unit("teff") == "K" and survey.labels == ("teff",)
        assert survey.column("field")[1] == b"b"
        assert survey.flux_error() is None


def test_content_hash_depends_on_content_not_on_chunks(tmp_path):
    for name, chunks in (("a", 1), ("b", 5)):
        write(tmp_path / f"{name}.h5", chunks)
    write(tmp_path / "c.h5", 1, n=29)
    hashes = [Survey(tmp_path / f"{name}.h5").content_hash for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_hash_of_short_text_is_that_of_64_bytes(tmp_path):
    """Surveys once stored text as 64 bytes each: they are still what they were, and the same text has the same hash."""
    write(tmp_path / "new.h5", 2)
    shutil.copy(tmp_path / "new.h5", tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        words = file["columns/field"][:].astype("S64")
        del file["columns/field"]
        file["columns/field"] = words
    with Survey(tmp_path / "old.h5", verify=True) as old, Survey(tmp_path / "new.h5", verify=True) as new:
        assert old.column("field").tolist() == new.column("field").tolist()
    assert new.content_hash == "21e6c7c11b5e962db183fc5c78e3f469a55d07f033bd4cc488e19c5957fb5289"


def test_text_of_any_length_and_alphabet_is_kept(tmp_path):
    words = ["", "α Cen A", "x" * 64, "x" * 64 + "A", "x" * 64 + "B", "é" * 40]
    hashes = set()
    for last in (words[-1], words[-1] + "é"):
        with SurveyWriter(tmp_path / "a.h5", WAVELENGTH, {"teff": "K"}, "é", "1", "tests") as writer:
            for rows in ([0, 1], [2, 3, 4], [5]):
                column = np.array([*words[:-1], last])[rows]
                writer.append(
                    np.array(rows), np.ones((len(rows), 8)), {"teff": np.ones(len(rows))}, columns={"w": column}
                )
        with Survey(tmp_path / "a.h5", verify=True) as survey:
            assert [word.decode() for word in survey.column("w")] == [*words[:-1], last]
            hashes.add(survey.content_hash)
    assert len(hashes) == 2


def test_labels_keep_their_order(toy_survey):
    assert Survey(toy_survey).labels == tuple(UNITS)


def test_an_edited_file_fails_verification(tmp_path):
    write_toy_survey(tmp_path / "a.h5", n=30)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["flux"][3, 3] = 7
    Survey(tmp_path / "a.h5")
    with pytest.raises(SpectangleError, match="content_hash differs"):
        Survey(tmp_path / "a.h5", verify=True)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-500])


def floats(path):
    with h5py.File(path, "r+") as file:
        ids = file["source_id"][:].astype(float)
        del file["source_id"]
        file["source_id"] = ids


def angstrom(path):
    with h5py.File(path, "r+") as file:
        file["wavelength"].attrs["unit"] = "angstrom"


def air(path):
    with h5py.File(path, "r+") as file:
        file["wavelength"].attrs["medium"] = "air"


def no_labels(path):
    with h5py.File(path, "r+") as file:
        for name in list(file["labels"]):
            del file["labels"][name]


def short_label(path):
    with h5py.File(path, "r+") as file:
        del file["labels/teff"]
        file["labels/teff"] = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (truncate, "truncated"),
        (floats, "source_id is float64, not int64"),
        (angstrom, "'angstrom', not 'nm'"),
        (air, "'air', not 'vacuum'"),
        (no_labels, "at least one in 'labels/'"),
        (short_label, "labels/teff has shape"),
        (lambda path: path.unlink(), "There is no survey file"),
        (lambda path: path.write_text("teff,logg\n"), "cannot be read as HDF5"),
    ],
)
def test_a_broken_file_is_refused_with_its_mend(tmp_path, damage, sentence):
    path = write_toy_survey(tmp_path / "a.h5", n=30)
    damage(path)
    with pytest.raises(SpectangleError, match=sentence):
        Survey(path)


def test_a_failed_write_leaves_nothing_and_spares_what_was_there(tmp_path):
    path = write_toy_survey(tmp_path / "a.h5", n=30)
    before = path.read_bytes()
    with pytest.raises(KeyError), SurveyWriter(path, WAVELENGTH, {"teff": "K"}, "toy", "1") as writer:
        writer.append(np.arange(3), np.ones((3, 8)), {"teff": np.ones(3)})
        raise KeyError
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize(
    ("ids", "labels", "sentence"),
    [
        (np.array([1.0, 2.0]), {"teff": [1, 2]}, "source_id came as float64"),
        (np.array([5, 5]), {"teff": [1, 2]}, "source_id 5 comes more than once"),
        (np.array([5, 6]), {"logg": [1, 2]}, "were appended to a survey of labels"),
        (np.array([5, 6]), {"teff": [1, 2, 3]}, "needs \\(2,\\)"),
    ],
)
def test_wrong_stars_are_refused(tmp_path, ids, labels, sentence):
    with (
        pytest.raises(SpectangleError, match=sentence),
        SurveyWriter(tmp_path / "a.h5", WAVELENGTH, {"teff": "K"}, "toy", "1") as writer,
    ):
        writer.append(ids, np.ones((2, 8)), labels)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(SpectangleError, match="No space left on device"),
        SurveyWriter(tmp_path / "a.h5", WAVELENGTH, {"teff": "K"}, "toy", "1") as writer,
    ):
        monkeypatch.setattr(h5py.Dataset, "__setitem__", full)
        writer.append(np.arange(2), np.ones((2, 8)), {"teff": [1, 2]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["labels", "label_errors", "columns"])
def test_names_with_a_slash_are_refused(tmp_path: Path, part: str):
    units = {"Fe/H" if part == "labels" else "fe_h": "dex"}
    more = {} if part == "labels" else {part: {"[Fe/H]": np.zeros(2)}}
    with (
        pytest.raises(
            SpectangleError,
            match=r"'\[?Fe/H\]?' cannot be a name in a survey file, where a slash separates folders; call it fe_h",
        ),
        SurveyWriter(tmp_path / "my.h5", [846.0, 846.1], units, origin="a", release="1") as writer,
    ):
        writer.append(np.arange(2), np.ones((2, 2)), {name: np.zeros(2) for name in units}, **more)
    assert not list(tmp_path.iterdir())


def test_a_file_that_has_a_slash_in_a_name_is_explained(tmp_path: Path, toy_survey: Path):
    shutil.copy(toy_survey, tmp_path / "my.h5")
    with h5py.File(tmp_path / "my.h5", "a") as file:
        file["labels/Fe/H"] = file["labels/m_h"][:]
    with pytest.raises(SpectangleError, match="labels/Fe is a group, since the name of what it holds has a slash"):
        Survey(tmp_path / "my.h5")


def test_masks_and_units_of_what_is_given_are_kept(tmp_path: Path):
    """Masked flux of 1e20 was stored as 1e20, a masked label as the number beneath, Angstrom as nm."""
    flux = np.ma.masked_array(np.ones((3, 8)), mask=np.zeros((3, 8), bool))
    flux.data[1, 2], flux.mask[1, 2] = 1e20, True
    error = np.ma.masked_array(np.full((3, 8), 0.1), mask=flux.mask)
    teff = np.ma.masked_array([5.0, 6.0, 7.0], mask=[False, True, False])
    with SurveyWriter(tmp_path / "a.h5", (WAVELENGTH * 10) * u.AA, {"teff": "K", "logg": "dex"}, "toy", "1") as writer:
        writer.append(
            np.array([1, 2, 3]),
            flux,
            {"teff": MaskedColumn(teff, unit="kK"), "logg": [4.0, 3.0, 2.0]},
            error,
            {"teff": np.array([0.1, 0.1, 0.2]) * u.kK, "logg": np.ma.masked_array([1.0, 2.0, 3.0], [1, 0, 0])},
            {
                "snr": np.ma.masked_array([1.0, 2.0, 3.0], [0, 0, 1]),
                "field": np.ma.masked_array(["a", "b", "c"], [0, 1, 0]),
            },
        )
    with Survey(tmp_path / "a.h5", verify=True) as survey:
        assert np.allclose(survey.wavelength, WAVELENGTH)
        assert (
            np.argwhere(np.isnan(survey.flux())).tolist()
            == [[1, 2]]
            == np.argwhere(np.isnan(survey.flux_error())).tolist()
        )
        assert np.nanmax(survey.flux()) == 1
        assert np.array_equal(survey.label("teff"), [5000, np.nan, 7000], equal_nan=True)
        assert np.allclose(survey.label_error("teff"), [100, 100, 200])
        assert np.isnan(survey.label_error("logg")).tolist() == [True, False, False]
        assert np.isnan(survey.column("snr")).tolist() == [False, False, True]
        assert survey.column("field").tolist() == [b"a", b"", b"c"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"wavelength": WAVELENGTH * 10}, "a.h5: the wavelengths run from 8460 .* They look like Angstrom"),
        ({"wavelength": WAVELENGTH * u.K}, "the wavelength unit 'K' is no unit of length"),
        ({"wavelength": np.ma.masked_less(WAVELENGTH, 846.01)}, "some are missing"),
        ({"ids": np.array([1, 2**63], np.uint64)}, "holds 9223372036854775808; ids have 63 bits"),
        ({"ids": np.ma.masked_array([1, 2], [0, 1])}, "row 2 of this chunk: the star has no source_id"),
        ({"teff": np.ones(2) * u.km}, "label teff has the unit 'km', and K was expected"),
        ({"teff": ["hot", "cool"]}, "label teff is of type <U4; numbers were expected"),
        ({"n": np.ma.masked_array([1, 2], [0, 1])}, "column n is of type int64 and masked in row 2"),
    ],
)
def test_what_a_survey_cannot_keep_is_refused(tmp_path: Path, change: dict, sentence: str):
    given = {"wavelength": WAVELENGTH, "ids": np.array([1, 2]), "teff": np.ones(2), "n": np.arange(2)} | change
    with (
        pytest.raises(SpectangleError, match=sentence),
        SurveyWriter(tmp_path / "a.h5", given["wavelength"], {"teff": "K"}, "toy", "1") as writer,
    ):
        writer.append(given["ids"], np.ones((2, 8)), {"teff": given["teff"]}, columns={"n": given["n"]})
    assert not list(tmp_path.iterdir())


def test_infrared_wavelengths_are_taken_with_their_unit(tmp_path: Path):
    with SurveyWriter(tmp_path / "a.h5", np.linspace(4.6, 4.9, 8) * u.um, {"teff": "K"}, "toy", "1") as writer:
        writer.append(np.arange(2), np.ones((2, 8)), {"teff": np.ones(2)})
    with Survey(tmp_path / "a.h5") as survey:
        assert np.allclose(survey.wavelength[[0, -1]], [4600, 4900])


WRITING = """
import sys, numpy as np
from spectangle.errors import SpectangleError
from spectangle.survey.writer import SurveyWriter
try:
    with SurveyWriter(sys.argv[1], np.linspace(846, 870, 100), {"teff": "K"}, "toy", "1", "tests") as writer:
        for start in range(0, 4000, int(sys.argv[2])):
            ids = np.arange(start, start + int(sys.argv[2]))
            words = np.array(["a star with a long name"] * len(ids))
            writer.append(ids, np.ones((len(ids), 100)), {"teff": ids}, columns={"name": words})
except SpectangleError as error:
    print(error)
"""


@pytest.mark.parametrize(("size", "stars"), [("4k", 1000), ("60k", 1000), ("200k", 50), ("300k", 4000), ("1m", 10)])
def test_a_disk_that_is_full_at_any_moment_is_one_sentence(tmp_path: Path, size: str, stars: int):
    """HDF5 ended in a segmentation fault at exit, or read ids that were not yet written as zeros."""
    with small_disk(tmp_path / "disk", size) as disk:
        code = [sys.executable, "-c", WRITING, str(disk / "a.h5"), str(stars)]
        done = subprocess.run(code, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 1 and "could not be written ([Errno 28] No space left" in done.stdout
        assert not list(disk.iterdir())


@pytest.mark.parametrize("size", ["300k", "2m"])
def test_a_preparation_that_fills_the_disk_is_one_sentence(tmp_path: Path, size: str):
    """It printed 680 lines of tracebacks, "Disable slist on flush dest failure"."""
    n = 300
    np.save(tmp_path / "flux.npy", np.ones((n, 2400), np.float32))
    np.save(tmp_path / "wavelength.npy", 846 + 0.01 * np.arange(2400))
    ids, teff = 128 * np.arange(1, n + 1), np.linspace(4000, 6000, n)
    Table({"source_id": ids, "teff": teff, "logg": np.full(n, 4.0)}).write(tmp_path / "stars.ecsv")
    with small_disk(tmp_path / "disk", size) as disk:
        words = ["archive=plain", f"spectra={tmp_path}/flux.npy", f"labels_table={tmp_path}/stars.ecsv"]
        words += [f"archive.wavelength={tmp_path}/wavelength.npy", f"survey={disk}/my.h5"]
        done = subprocess.run([sys.executable, "-m", "spectangle", "prepare", *words], capture_output=True, text=True)
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower() or "Traceback" in line]
        assert done.returncode == 1 and len(errors) == 1
        assert "could not be written ([Errno 28] No space left on device); free some space" in errors[0]


def test_two_programs_do_not_write_one_survey(tmp_path: Path):
    with SurveyWriter(tmp_path / "a.h5", WAVELENGTH, {"teff": "K"}, "toy", "1") as writer:
        with (
            pytest.raises(SpectangleError, match="cannot be locked"),
            SurveyWriter(tmp_path / "a.h5", WAVELENGTH, {"teff": "K"}, "toy", "1"),
        ):
            pass
        writer.append(np.arange(2), np.ones((2, 8)), {"teff": np.ones(2)})
    assert len(Survey(tmp_path / "a.h5", verify=True)) == 2
