"""generate.py: other labels for the same stars, written as a survey; and the checks of what was generated."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Command, leftovers

from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.generation import parents
from spectangle.generation.check import check_generation, compare_with_emulator, reread
from spectangle.generation.generate import generate
from spectangle.generation.label_changes import label_grid
from spectangle.generation.parents import Parents
from spectangle.generation.swaps import Swap, Truth, swap_labels
from spectangle.inference import spectra_input
from spectangle.inference.load import load
from spectangle.model.load import load_autoencoder
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey


@pytest.fixture
def command(monkeypatch, capsys):
    return Command(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("asked", "values"),
    [
        (7500, [7500]),
        ("7500", [7500]),
        ([1, 2.5], [1, 2.5]),
        ("4000:6500:500", [4000, 4500, 5000, 5500, 6000, 6500]),
        ("-0.3:0.3:0.2", [-0.3, -0.1, 0.1, 0.3]),
    ],
)
def test_values_can_be_a_number_a_list_or_a_range(asked, values):
    assert [point["teff"] for point in label_grid({"teff": asked}, ["teff"])] == pytest.approx(values, abs=1e-6)


def test_several_labels_give_all_combinations():
    grid = label_grid({"teff": "4000:5000:500", "logg": [2, 4], "m_h": None}, ["teff", "logg", "m_h"])
    assert len(grid) == 6 and grid[1] == {"teff": 4000, "logg": 4}
    assert label_grid({"teff": None}, ["teff"]) == [{}]


@pytest.mark.parametrize("asked", ["hot", "6000:4000:100", "1:2", "4000:6000:0", {"a": 1}])
def test_anything_else_is_refused(asked):
    with pytest.raises(SpectangleError, match="no number, list or range"):
        label_grid({"teff": asked}, ["teff"])


def test_an_attribute_is_told_from_a_label():
    with pytest.raises(SpectangleError, match="instrument is no label of the run but an attribute"):
        label_grid({"instrument": "A"}, ["teff"], ["instrument"])
    with pytest.raises(SpectangleError, match="does not know this label"):
        label_grid({"tef": "A"}, ["teff"], ["instrument"])


def test_generated_spectra_are_a_survey(toy_runs, tmp_path: Path, command):
    out = tmp_path / "generated.h5"
    code, printed, err = command("generate", f"run={toy_runs[0]}", "set.m_h=-0.1", f"out={out}", "n_stars=10")
    assert code == 0, err
    run, test = Run(toy_runs[0]), load_stars(Run(toy_runs[0])).test
    with Survey(out, verify=True) as survey:
        np.testing.assert_array_equal(survey.source_id, test.source_id[:10])
        np.testing.assert_allclose(survey.label("m_h"), -0.1)
        np.testing.assert_array_equal(survey.label("teff"), test.labels[:10, 0])
        np.testing.assert_array_equal(survey.column("original_m_h"), test.labels[:10, 2])
        assert (
            survey.unit("teff") == "K"
            and run.path.name in survey.attributes["origin"]
            and survey.attributes["release"] == "m_h=-0.1"
        )
        model, labels = load_autoencoder(run), test.labels[:10].clone()
        latent = torch.from_numpy(model.embed(test.flux[:10], source_id=test.source_id[:10]))
        labels[:, 2] = -0.1
        with torch.no_grad():
            expected = model.decode(latent, labels)
        np.testing.assert_allclose(survey.flux(), expected, atol=1e-6)
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG") and leftovers(tmp_path) == []


def test_a_grid_can_be_trained_on(toy_runs, tmp_path: Path):
    from spectangle.data.module import SpectraDataModule

    out = generate(
        str(toy_runs[0]),
        str(tmp_path / "grid.h5"),
        {"m_h": "-0.5:0.3:0.2", "alpha_fe": [0.0, 0.1]},
        n_stars=4,
        figure=False,
    )
    with Survey(out) as survey:
        assert len(survey) == 4 * 5 * 2 and len(set(survey.source_id)) == 40
        assert len(set(survey.column("parent_source_id"))) == 4
    data = SpectraDataModule(str(out))
    data.setup()
    assert len(data.train) + len(data.validation) + len(data.test) == 40 and len(data.train) > 20


def test_nothing_set_gives_reconstructions(toy_runs, tmp_path: Path, caplog):
    with caplog.at_level(logging.INFO, "spectangle"):
        out = generate(str(toy_runs[0]), str(tmp_path / "same.h5"), {}, n_stars=5, figure=False)
    assert "nothing is set: the spectra are those of the stars themselves" in caplog.text
    with Survey(out) as survey:
        assert survey.attributes["release"] == "reconstructions" and np.all(survey.column("label_distance") < 5)


def test_beyond_the_training_stars_it_warns_and_says_how_far(toy_runs, tmp_path: Path, command):
    _, printed, _ = command(
        "generate", f"run={toy_runs[0]}", "set.teff=12000", f"out={tmp_path / 'hot.h5'}", "figure=false", "n_stars=3"
    )
    highest = float(load_stars(Run(toy_runs[0])).train.labels[:, 0].max())
    assert f"{12000 - highest:.3g} K beyond" in printed and "3 of 3 spectra have a combination of labels" in printed
    assert "left the label in the latent" in printed  # teff is entangled in the first pair
    with Survey(tmp_path / "hot.h5") as survey:
        assert np.all(survey.column("label_distance") > 1)


def test_stars_can_be_chosen(toy_runs, toy_survey: Path, tmp_path: Path):
    with Survey(toy_survey) as survey:
        wanted = [int(one) for one in survey.source_id[[7, 3]]]
    out = generate(
        str(toy_runs[0]),
        str(tmp_path / "two.h5"),
        {"m_h": 0.0},
        spectra=str(toy_survey),
        source_id=wanted,
        figure=False,
    )
    with Survey(out) as survey:
        assert survey.source_id.tolist() == wanted
    with pytest.raises(SpectangleError, match="source_id 12 is not among"):
        generate(str(toy_runs[0]), str(tmp_path / "none.h5"), {}, source_id=[12])


def test_a_regular_autoencoder_is_told_no_labels(toy_runs, tmp_path: Path, command):
    pure = toy_runs[2]
    code, _, err = command("generate", f"run={pure}", f"out={tmp_path / 'out.h5'}", "set.m_h=0.0")
    assert code == 1 and "told no labels (model.conditioning=none, a regular autoencoder)" in err
    assert leftovers(tmp_path) == []
    with pytest.raises(SpectangleError, match="model.conditioning=observed"):
        load(pure).generate(np.full((2, 40), 0.8), m_h=0.0)


def test_stars_without_labels_get_those_that_are_read(toy_runs, tmp_path: Path):
    model = load(toy_runs[0])
    np.savez(tmp_path / "unknown.npz", flux=np.full((2, 40), 0.8), wavelength=model.wavelength)
    out = generate(
        str(toy_runs[0]), str(tmp_path / "out.h5"), {"m_h": 0.1}, spectra=str(tmp_path / "unknown.npz"), figure=False
    )
    with Survey(out) as survey:
        np.testing.assert_allclose(survey.label("teff"), model.predict(np.full((2, 40), 0.8))["teff"], rtol=1e-5)


def test_the_check_leaves_its_numbers_in_the_run(toy_runs):
    results = check_generation(str(toy_runs[0]), figure=True)
    assert set(results) == {"reread"} and set(results["reread"]) == {
        "teff",
        "logg",
        "m_h",
        "alpha_fe",
    }  # no truth, no emulator
    assert Run(toy_runs[0]).derived("generation_check.json").is_file()
    assert (toy_runs[0] / "figures" / "generation_check.png").is_file()


def test_reading_again_finds_the_new_label_and_no_other_change():
    """With a decoder that writes the labels into the pixels and a regressor that reads them there, the slope is 1."""
    random = np.random.default_rng(0)
    labels = random.normal(size=(50, 3))
    swapped = labels.copy()
    swapped[:, 1] = random.normal(size=50)

    class Honest:
        labels = ("a", "b", "c")
        decode = staticmethod(lambda latent, labels: labels)
        predict = staticmethod(lambda flux: flux)

    parents = Parents(np.arange(50), labels, labels, np.zeros((50, 2)))
    result = reread(Honest(), parents, Swap(1, swapped, np.ones(50, bool)), Honest())  # pyright: ignore[reportArgumentType]
    assert result["slope"] == pytest.approx(1) and result["mae"] == 0 and result["moved"] == {"a": 0, "c": 0}


def test_the_emulator_judges_a_perfect_generator_perfect(toy_runs):
    """If the decoder were the emulator itself, all of the change would be captured and the rms would be nil."""
    from spectangle.synthetic import emulate

    model = load(toy_runs[0])
    random = np.random.default_rng(0)
    labels = np.column_stack(
        [
            random.uniform(4500, 5500, 12),
            random.uniform(2, 4, 12),
            random.uniform(-0.5, 0.2, 12),
            random.uniform(0, 0.2, 12),
        ]
    ).astype(np.float32)
    parents = Parents(np.arange(12), emulate(labels), labels, np.zeros((12, 4), np.float32))
    swap = Swap(0, swap_labels(labels, 0, model).labels, np.ones(12, bool))

    class Perfect:
        @staticmethod
        def decode(latent, labels):
            return emulate(labels)

    result = compare_with_emulator(Perfect(), parents, swap, Truth(labels, np.full(12, 5.0), np.zeros(12)))  # pyright: ignore[reportArgumentType]
    assert result["captured"] == pytest.approx(1, abs=1e-6) and result["rms_generated"] < 1e-6 < result["rms_unchanged"]


@pytest.mark.parametrize(("asked", "chunks"), [({"n_stars": 10}, 1), ({"n_stars": 40}, 2), ({"source_id": 35}, 2)])
def test_no_more_is_read_than_is_needed(toy_runs, toy_survey, tmp_path: Path, monkeypatch, asked: dict, chunks: int):
    """The whole file was read for its first 100 stars: 7 GB of a million."""
    read, flux = [], Survey.flux
    monkeypatch.setattr(spectra_input, "CHUNK", 32)
    monkeypatch.setattr(Survey, "flux", lambda self, *rows: (read.append(rows), flux(self, *rows))[1])
    with Survey(toy_survey) as survey:
        ids = survey.source_id
    if "source_id" in asked:
        asked = {"source_id": [int(ids[asked["source_id"]]), int(ids[3])]}
    made = generate(
        str(toy_runs[0]), str(tmp_path / "a.h5"), {"m_h": -0.5}, spectra=str(toy_survey), figure=False, **asked
    )
    with Survey(made) as survey:
        assert survey.source_id.tolist() == asked.get("source_id", ids[: asked.get("n_stars")].tolist())
    assert len([rows for rows in read if rows != (0, 1)]) == chunks  # the first row is looked at before


@pytest.mark.parametrize("asked", [{"m_h": -0.5}, {"m_h": [-0.5, 0.3, 3.0], "teff": [4000, 9000]}])
@pytest.mark.parametrize("stars", ["file", "test"])
def test_stars_in_blocks_make_the_same_survey(toy_runs, toy_survey, tmp_path: Path, monkeypatch, caplog, asked, stars):
    """All stars were held, with their labels at all points of the grid."""
    options = {"spectra": str(toy_survey) if stars == "file" else None, "n_stars": None, "figure": False}
    counts = []
    for name, block, chunk in (("whole.h5", 8192, 2048), ("blocks.h5", 16, 7)):
        monkeypatch.setattr(parents, "BLOCK", block)
        monkeypatch.setattr(spectra_input, "CHUNK", chunk)
        caplog.clear()
        with caplog.at_level(logging.INFO, "spectangle"):
            generate(str(toy_runs[0]), str(tmp_path / name), asked, **options)
        counts.append([text.replace(name, "") for text in caplog.messages if "spectra" in text])
    assert counts[0] and [text.split(": ", 1)[1] for text in counts[0]] == [
        text.split(": ", 1)[1] for text in counts[1]
    ]
    with Survey(tmp_path / "whole.h5") as whole, Survey(tmp_path / "blocks.h5", verify=True) as blocks:
        np.testing.assert_array_equal(blocks.source_id, whole.source_id)
        np.testing.assert_allclose(blocks.flux(), whole.flux(), atol=1e-6)  # products of fewer rows end otherwise
        for name in whole.columns:
            np.testing.assert_allclose(blocks.column(name), whole.column(name), rtol=1e-5)


def test_no_more_than_a_block_of_spectra_is_held(toy_runs, toy_survey, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(parents, "BLOCK", 16, raising=False)
    monkeypatch.setattr(spectra_input, "CHUNK", 16)
    read, encoded = parents.read_spectra, []
    monkeypatch.setattr(
        parents, "read_spectra", lambda models, flux, *rest: (encoded.append(len(flux)), read(models, flux, *rest))[1]
    )
    generate(str(toy_runs[0]), str(tmp_path / "a.h5"), {}, spectra=str(toy_survey), n_stars=None, figure=False)
    assert encoded == [16] * 25


def test_an_id_that_comes_again_blocks_later_is_refused(toy_runs, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(parents, "BLOCK", 2)
    monkeypatch.setattr(spectra_input, "CHUNK", 2)
    grid = load(toy_runs[0]).wavelength
    flux = np.full((7, len(grid)), 0.8)
    flux[[1, 4]] = np.nan
    for ids, said in (([1, 2, 3, 4, 5, 6, 2], "source_id 2 comes more than once"), (None, None)):
        more = {} if ids is None else {"source_id": ids}
        np.savez(tmp_path / "a.npz", flux=flux, wavelength=grid, **more)
        options = {"spectra": str(tmp_path / "a.npz"), "n_stars": None, "figure": False}
        if said:
            with pytest.raises(SpectangleError, match=said):
                generate(str(toy_runs[0]), str(tmp_path / "a.h5"), {"m_h": 0}, **options)
            assert leftovers(tmp_path) == [] and not (tmp_path / "a.h5").exists()
        else:
            with Survey(generate(str(toy_runs[0]), str(tmp_path / "a.h5"), {"m_h": 0}, **options)) as survey:
                assert survey.source_id.tolist() == [1, 3, 4, 6, 7]


def test_what_is_read_is_not_written_over(toy_runs, toy_survey, tmp_path: Path):
    path = tmp_path / "stars.h5"
    path.write_bytes(toy_survey.read_bytes())
    (tmp_path / "same.h5").symlink_to(path)
    for out in ("stars.h5", "same.h5"):
        with pytest.raises(SpectangleError, match="is read and would be written over; choose another name"):
            generate(str(toy_runs[0]), str(tmp_path / out), {"m_h": 0}, spectra=str(path), overwrite=True)
    assert path.read_bytes() == toy_survey.read_bytes()
    with pytest.raises(SpectangleError, match="is read and would be written over"):
        generate(str(toy_runs[0]), str(path), {"m_h": 0}, survey=str(path), overwrite=True)


def test_what_cannot_end_well_is_refused_before_the_work(toy_runs, tmp_path: Path, monkeypatch):
    model = load(toy_runs[0])
    np.savez(
        tmp_path / "a.npz", flux=np.ones((3, len(model.wavelength))), wavelength=model.wavelength, source_id=[1, 2, 1]
    )
    monkeypatch.setattr(parents, "read_spectra", lambda *_: pytest.fail("it was encoded"))
    with pytest.raises(SpectangleError, match="source_id 1 comes more than once"):
        generate(str(toy_runs[0]), str(tmp_path / "a.h5"), {"m_h": 0}, spectra=str(tmp_path / "a.npz"))
    monkeypatch.setattr("spectangle.generation.generate.load", lambda *_: pytest.fail("the run was loaded"))
    with pytest.raises(SpectangleError, match="cannot be written .*; choose another folder"):
        generate(str(toy_runs[0]), str(tmp_path / "a.npz" / "a.h5"), {"m_h": 0})


def test_a_picture_for_which_there_is_no_room_is_a_sentence(toy_runs, tmp_path: Path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(SpectangleError, match="a.png could not be written .*; the spectra are there"):
        generate(str(toy_runs[0]), str(tmp_path / "a.h5"), {"m_h": 0}, n_stars=3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
