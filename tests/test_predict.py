"""predict.py: every format, uncertainty, quality flags, other grids, nothing half-written."""

import io
import json
import os
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet
import pytest
import torch
from archive_files import Stars, write_bulk
from astropy.io import fits
from astropy.io.votable import parse
from astropy.table import Table
from commands import Command, leftovers
from conftest import write_toy_survey

from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.evaluation.regressors import load_run_regressor
from spectangle.export.model_card import model_card
from spectangle.inference import star_table
from spectangle.inference.calibrate import _half_step
from spectangle.inference.calibration import Calibration, nearest_distance
from spectangle.inference.load import load
from spectangle.inference.model_grid import to_grid
from spectangle.inference.predict import predict, read_all
from spectangle.inference.quality import Limits, Quality, quality
from spectangle.inference.read import read_spectra
from spectangle.inference.reading import Reading
from spectangle.inference.readout import Readout
from spectangle.inference.spectra_input import InputSpectra, StarChunk
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey
from spectangle.threads import use_threads

FORMATS = {".ecsv": "ascii.ecsv", ".fits": "fits", ".vot": "votable", ".parquet": "parquet"}


def read(path: Path) -> Table:
    """Read a table as other programs do; a VOParquet file has its units and descriptions in a VOTable without data."""
    if path.suffix != ".parquet":
        return Table.read(path, format=FORMATS[path.suffix])
    stored = pyarrow.parquet.read_table(path)
    header = parse(io.BytesIO(stored.schema.metadata[b"IVOA.VOTable-Parquet.content"])).get_first_table()
    table = Table({name: np.asarray(stored[name]) for name in stored.column_names})
    for field in header.fields:
        table[field.name].unit, table[field.name].description = field.unit, field.description
    return table


@pytest.fixture
def command(monkeypatch, capsys):
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(toy_runs):
    return load(toy_runs[0])


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_keeps_ids_units_and_the_run(ending: str, toy_runs, toy_survey: Path, tmp_path: Path, command):
    out = tmp_path / f"stars{ending}"
    code, printed, _ = command("predict", f"run={toy_runs[0]}", f"spectra={toy_survey}", f"out={out}", "latents=true")
    assert code == 0 and "400 stars" in printed
    table = read(out)
    with Survey(toy_survey) as survey:
        np.testing.assert_array_equal(np.asarray(table["source_id"]), survey.source_id)
        assert table["source_id"].dtype.kind == "i"
    assert str(table["teff"].unit) == "K" and "temperature" in table["teff"].description
    assert str(table["logg"].unit) == str(table["m_h_uncertainty"].unit) == "dex"
    if ending == ".fits":  # as TOPCAT reads them
        header = fits.getheader(out, 1)
        assert (
            header["TUNIT4"] == "dex"
            and header["TUCD2"] == "phys.temperature.effective"
            and "temperature" in header["TCOMM2"]
        )
    assert all(
        name in table.colnames
        for name in (
            "teff_uncertainty",
            "chi2",
            "ood_score",
            "misfit_score",
            "flags",
            "snr",
            "masked_fraction",
            "z00",
            "z03",
        )
    )
    raw = out.read_bytes()
    assert Run(toy_runs[0]).checkpoint_hash.encode() in raw and b"68" in raw
    assert leftovers(tmp_path) == []


def test_the_table_says_what_its_flags_mean(toy_runs, toy_survey: Path, tmp_path: Path):
    table = Table.read(predict(str(toy_runs[0]), str(toy_survey), str(tmp_path / "stars.ecsv")))
    for bit in Quality:
        assert f"{bit.value} = " in table["flags"].description and f"{bit.value} = " in table.meta["flagbits"]
    assert table.meta["coverage"] == "0.6827" and "teff=" in table.meta["tested"]


def test_text_in_pieces_is_the_same_text(model, toy_survey: Path, tmp_path: Path, monkeypatch):
    with Survey(toy_survey) as survey:
        table = model.predict(survey.flux(0, 50), survey.flux_error(0, 50))
    table["teff"][3] = np.nan
    star_table.write_table(table, tmp_path / "whole.ecsv")
    monkeypatch.setattr(star_table, "RECORD_ROWS", 7)
    star_table.write_table(table, tmp_path / "pieces.ecsv")
    assert (tmp_path / "whole.ecsv").read_text() == (tmp_path / "pieces.ecsv").read_text()


def test_the_python_api_reads_chunks_in_threads_as_the_command_does(model, toy_survey: Path, monkeypatch):
    """It gave each product to all threads, which wait for one another at every layer."""
    with Survey(toy_survey) as survey:
        stars = survey.flux(), survey.flux_error(), None, survey.source_id
    whole, seen = model.predict(*stars), []

    def watched(models, flux, *rest):
        seen.append((threading.current_thread(), torch.get_num_threads(), len(flux)))
        return read_spectra(models, flux, *rest)

    monkeypatch.setattr("spectangle.inference.read_chunks.read_spectra", watched)
    monkeypatch.setattr("spectangle.inference.spectra_input.CHUNK", 150)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        parts = model.predict(*stars)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert sorted(n for *_, n in seen) == [100, 150, 150] and {used for _, used, _ in seen} == {1}
    assert threading.current_thread() not in {thread for thread, *_ in seen}
    for name in whole.colnames:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, atol=1e-5)


def test_the_readout_is_the_fitted_regressor(toy_runs, model):
    z = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    with torch.no_grad():
        read = model.readout(torch.from_numpy(z)).numpy()
    expected = load_run_regressor(Run(toy_runs[0])).predict(z)
    np.testing.assert_allclose(read, expected, rtol=1e-4, atol=1e-4 * expected.std(axis=0).max())


def test_a_regressor_that_is_no_network_is_refused():
    from sklearn.linear_model import Ridge

    with pytest.raises(SpectangleError, match="Ridge"):
        Readout.from_regressor(Ridge())


def test_labels_are_those_of_the_run(toy_runs, toy_survey: Path, model):
    """What predict reads of the test stars scores as the run said."""
    data = load_stars(Run(toy_runs[0]))
    table = model.predict(data.test.flux.numpy(), source_id=data.test.source_id)
    mae = np.abs(np.asarray(table["teff"]) - data.test.labels[:, 0].numpy()).mean()
    assert mae == pytest.approx(model.metrics["test/latent/teff/mae"], rel=1e-3)


def test_intervals_cover_as_stated():
    """Split-conformal intervals cover new stars as often as asked, whatever their noise and however wrong the guess of
    it.
    """
    random = np.random.default_rng(0)
    n = 3000
    noise = np.exp(random.normal(size=(2 * n, 1)))
    scores = np.abs(random.standard_t(3, size=(2 * n, 1)) * noise)
    fields = dict.fromkeys(Calibration.__dataclass_fields__, np.ones(1, np.float32))
    known = Calibration(**fields | {"scores": np.sort(scores[:n], axis=0), "test_scores": np.sort(scores[n:], axis=0)})
    for coverage in (0.5, 0.6827, 0.9, 0.99):
        assert known.measured_coverage(coverage)[0] == pytest.approx(
            coverage, abs=4 * np.sqrt(2 * coverage * (1 - coverage) / n)
        )
    with pytest.raises(SpectangleError, match="validation stars"):
        known.quantile(0.9999)


def bare_calibration(**known) -> Calibration:
    """A calibration of which only some numbers matter."""
    fields = dict.fromkeys(Calibration.__dataclass_fields__, np.ones(1, np.float32))
    return Calibration(**fields | {name: np.asarray(value, np.float32) for name, value in known.items()})


def test_the_score_of_a_coverage_is_the_one_that_conformal_prediction_asks_for():
    """The ceil((n + 1) c)-th of n, of the stars that have each label; and what it is worth is told by test stars."""
    nan = np.nan
    scores = np.stack([np.arange(1.0, 10), [*np.arange(10.0, 50, 10), *[nan] * 5]], axis=1)
    known = bare_calibration(scores=scores, test_scores=[[5, 40], [6, 41], [1, 7], [2, nan]])
    assert known.quantile(0.5).tolist() == [5, 30] and known.quantile(0.51).tolist() == [6, 30]
    assert known.quantile(0.8).tolist() == [8, 40] and known.quantile(0.05).tolist() == [1, 10]
    assert known.quantile(0.81).tolist() == [9, np.inf] and known.quantile(0.9).tolist() == [9, np.inf]
    assert known.measured_coverage(0.5).tolist() == pytest.approx([3 / 4, 1 / 3])
    assert known.measured_coverage(0.8).tolist() == pytest.approx([1, 2 / 3])
    for impossible in (0.0, 0.91, 1.0):
        with pytest.raises(SpectangleError, match="9 validation stars; choose one between 0 and 0.900"):
            known.quantile(impossible)


def test_scores_are_in_units_of_what_is_normal():
    """Of stars with and without errors by the limits of each, and the worse of two misfits counts."""
    limits = np.log([[[2.0, 2.0], [1.0, 1.0], [4.0, 4.0]], [[8.0, 8.0], [10.0, 10.0], [5.0, 5.0]]])
    known = bare_calibration(
        limit_knots=[[0, 5], [0, 5]],
        limits=limits,
        latent_mean=[1, 1],
        whitening=[[0.5, 0], [0, 2]],
        label_sample=[[0, 0], [1, 2]],
        label_std=[1000, 0.5],
        label_limit=[0.1],
        pixel_residual=[0.5, 0.0],
    )
    assert known.distance(torch.tensor([[1.0, 1.0], [3.0, 1.0], [1.0, 3.0]])).tolist() == [0, 1, 4]
    assert known.pixel_weight.tolist() == [2, pytest.approx(1e6)]
    assert known.label_distance(np.array([[1000.0, 1.0], [1200.0, 1.0]])).tolist() == pytest.approx([0, 2], abs=1e-5)
    two = np.ones(2)
    reading = Reading(
        np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2)), 4 * two, *[two] * 2, 4 * np.ones((2, 2)), *[two] * 3
    )
    distance, misfit = known.quality_scores(reading, np.array([True, False]))
    assert distance.tolist() == pytest.approx([2, 0.5]) and misfit.tolist() == pytest.approx([4, 0.8])


def test_the_first_misfit_is_that_of_spectra_with_errors():
    """As everywhere in a calibration: 0 with errors, 1 without."""
    both = {
        "misfit_whitening": np.ones((2, 1, 2)),
        "misfit_variance": [[1, 1], [2, 2]],
        "misfit_rest": [[3, 3], [4, 4]],
    }
    with_errors, without = bare_calibration(misfit_basis=np.ones((4, 1)), **both).misfits
    assert (with_errors.variance == 1).all() and (with_errors.rest == 3).all()
    assert (without.variance == 2).all() and (without.rest == 4).all()


def test_a_star_beyond_all_that_were_seen_is_as_hard_as_the_hardest(monkeypatch):
    """The guess of a star's difficulty is not carried on beyond the features of the stars that it was fitted to."""
    monkeypatch.setattr("spectangle.inference.calibration.PIECE", 2)  # of three stars
    known = bare_calibration(
        label_range=[[0], [1]],
        difficulty=[[0, 1, 0, 0, 0]],
        feature_range=[[1, -5, -99, -1, -1], [1, 0, 99, 1, 1]],  # of 1, log rms, log spread, label and its square
        scores=[[3], [4], [5]],
        test_scores=[[1]],
    )
    rms, one = np.array([np.exp(-2), 100.0, 1e-5]), np.ones((3, 1))
    reading = Reading(one / 2, one, one, rms, rms, *[rms] * 5)
    widths = known.uncertainty(reading, 0.5)[:, 0]
    np.testing.assert_allclose(widths, 4 * np.exp([-2, 0, -5]), rtol=1e-3)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_label_of_few_validation_stars_has_infinite_intervals_and_leaves_the_others(
    model, toy_survey: Path, tmp_path: Path, ending: str, caplog
):
    scores = model.calibration.scores.copy()
    scores[3:, 2] = np.nan
    few = replace(model, calibration=replace(model.calibration, scores=scores))
    assert np.isfinite(few.predict(np.full((2, 40), 0.8), coverage=0.7)["m_h_uncertainty"]).all() and not caplog.text
    with Survey(toy_survey) as survey:
        table = few.predict(survey.flux(0, 5), survey.flux_error(0, 5), coverage=0.9)
    assert "m_h (3): too few validation stars" in caplog.text and "m_h=-" in table.meta["tested"]
    star_table.write_table(table, tmp_path / f"few{ending}")
    back = read(tmp_path / f"few{ending}")
    assert np.isinf(back["m_h_uncertainty"]).all() and np.isfinite(back["teff_uncertainty"]).all()
    nothing = replace(few.calibration, scores=scores[:2])
    with pytest.raises(SpectangleError, match="coverage=0.9 cannot be given with 2 validation stars"):
        nothing.quantile(0.9)


def test_measured_coverage_of_a_run(model):
    n = len(model.calibration.test_scores)
    for coverage in (0.5, 0.8):
        measured = model.calibration.measured_coverage(coverage)
        spread = np.sqrt(coverage * (1 - coverage) * (1 / n + 1 / len(model.calibration.scores)))
        assert np.all(np.abs(measured - coverage) < 4 * spread)


def test_noisier_stars_get_wider_intervals(model):
    reading = Reading(
        np.tile(model.calibration.label_range.mean(0), (2, 1)),
        np.zeros((2, 4)),
        *[np.zeros(2)] * 2,
        np.array([0.005, 0.02]),
        *[np.zeros(2)] * 5,
    )
    low, high = model.calibration.uncertainty(reading, 0.68)
    assert low.shape == (4,) and np.all(low > 0)
    assert not np.allclose(low, high)


def test_an_ensemble_tells_how_far_its_models_disagree(toy_runs, toy_survey: Path, tmp_path: Path):
    both, one, other = (
        Table.read(predict(run, str(toy_survey), str(tmp_path / name)))
        for run, name in (
            ([str(r) for r in toy_runs[:2]], "both.ecsv"),
            (str(toy_runs[0]), "one.ecsv"),
            (str(toy_runs[1]), "other.ecsv"),
        )
    )
    np.testing.assert_allclose(both["teff"], (one["teff"] + other["teff"]) / 2, rtol=1e-5)
    np.testing.assert_allclose(both["teff_spread"], np.abs(one["teff"] - other["teff"]) / 2, rtol=1e-3, atol=1e-2)
    assert "teff_uncertainty" in both.colnames and len(both.meta["run"].split()) == 2


def test_an_ensemble_of_runs_that_keep_other_labels_is_refused(toy_runs, toy_survey: Path, tmp_path: Path):
    runs = [str(toy_runs[0]), str(toy_runs[2])]
    with pytest.raises(SpectangleError, match="keeps or loses other labels"):
        predict(runs, str(toy_survey), str(tmp_path / "both.ecsv"))
    assert not list(tmp_path.iterdir())


def test_labels_that_many_stars_have_at_zero_have_a_nearest_star():
    """A tree that cuts between equal numbers would look for one just above 0 and, rounded to 0, never find it."""
    use_threads(1)
    sample = np.zeros((200, 2))
    sample[100:] = np.random.default_rng(0).normal(size=(100, 2))
    np.testing.assert_allclose(nearest_distance(sample, np.array([[0.0, 0.0], sample[150] + [0, 1e-6]])), [0, 1e-6])


def test_between_labels_on_a_grid_is_not_beyond_the_stars():
    grid = np.repeat(np.arange(0.0, 5.0), 20)[:, None]
    assert _half_step(grid) == 0.5 and _half_step(np.zeros((5, 1))) == 0


@pytest.mark.parametrize("bit", list(Quality))
def test_each_flag_is_set_by_its_condition_alone(bit: Quality):
    star = {"snr": 50.0, "masked": 0.0, "labels": 0.5, "ood": 0.1, "misfit": 0.1}
    star |= {
        Quality.NO_DATA: {"masked": 1.0},
        Quality.LOW_SNR: {"snr": 2.0},
        Quality.MASKED: {"masked": 0.5},
        Quality.OUTSIDE_LABELS: {"labels": 1.5},
        Quality.OUT_OF_DISTRIBUTION: {"ood": 3.0},
        Quality.POOR_RECONSTRUCTION: {"misfit": 3.0},
    }[bit]
    values = {name: np.array([value]) for name, value in star.items()}
    values["labels"] = values["labels"][:, None]
    word = quality(Limits(), label_range=np.array([[0.0], [1.0]]), **values)[0]
    assert word & bit.value
    assert word == bit.value or bit is Quality.NO_DATA  # without any pixel, too many are masked as well


def test_without_errors_there_is_no_low_snr(model, toy_survey: Path):
    with Survey(toy_survey) as survey:
        table = model.predict(survey.flux(0, 20))
    assert np.isnan(table["snr"]).all() and not np.any(np.asarray(table["flags"]) & Quality.LOW_SNR)


def test_stars_without_errors_are_judged_as_such_beside_others(model, toy_survey: Path):
    with Survey(toy_survey) as survey:
        flux, error, ids = survey.flux(0, 40), survey.flux_error(0, 40), survey.source_id[:40]
    kinds = {"a": slice(0, 25), "b": slice(25, 40)}
    spectra = InputSpectra(40, iter([StarChunk(ids[:25], flux[:25], error[:25]), StarChunk(ids[25:], flux[25:], None)]))
    reading, _, has_error = read_all([model], spectra)
    np.testing.assert_array_equal(has_error, np.arange(40) < 25)
    mixed = star_table.star_table(model, reading, ids, has_error, 0.6827, Limits())
    apart = [
        model.predict(flux[rows], error[rows] if name == "a" else None, source_id=ids[rows])
        for name, rows in kinds.items()
    ]
    for column in ("ood_score", "misfit_score", "flags", "chi2"):
        np.testing.assert_allclose(mixed[column], np.concatenate([one[column] for one in apart]), rtol=1e-4)
    assert "its flux error or, of stars that came without" in mixed["chi2"].description
    assert "its flux error)^2" in apart[0]["chi2"].description
    assert "(no flux errors came)" in apart[1]["chi2"].description


def test_strange_spectra_are_told_from_normal_ones(model, toy_survey: Path):
    with Survey(toy_survey) as survey:
        flux = survey.flux()
    normal = np.asarray(model.predict(flux)["ood_score"])
    strange = np.asarray(model.predict(1.6 - 2 * flux)["ood_score"])
    assert np.quantile(normal, 0.9) < 1 < np.quantile(strange, 0.1)


def test_a_masked_star_reads_nan_and_says_so(model, toy_survey: Path):
    with Survey(toy_survey) as survey:
        flux, error = survey.flux(0, 6), survey.flux_error(0, 6)
    whole = model.predict(flux, error)
    flux[2], flux[3, :10] = np.nan, np.nan
    error[4, 5] = 0
    table = model.predict(flux, error)
    assert np.isnan(table["teff"][2]) and table["flags"][2] == Quality.NO_DATA + Quality.MASKED
    assert (
        table["masked_fraction"][3] == pytest.approx(0.25)
        and np.isfinite(table["teff"][3])
        and table["flags"][3] & Quality.MASKED
    )
    assert table["masked_fraction"][4] == pytest.approx(1 / 40)
    np.testing.assert_allclose(table["teff"][[0, 1, 5]], whole["teff"][[0, 1, 5]], rtol=1e-4)


def test_another_grid_is_resampled_or_averaged(toy_runs, model, toy_survey: Path, tmp_path: Path):
    with Survey(toy_survey) as survey:
        flux, wavelength = survey.flux(0, 30), survey.wavelength
    own = model.predict(flux)
    thirds = np.repeat(wavelength, 3) + np.tile([-0.01, 0.0, 0.01], len(wavelength))
    averaged = model.predict(np.repeat(flux, 3, axis=1), wavelength=thirds)
    np.testing.assert_allclose(averaged["teff"], own["teff"], rtol=1e-4)
    fine = np.arange(845.9, 847.3, 0.007)
    smooth = np.stack([np.interp(fine, wavelength, one) for one in flux])
    np.savez(tmp_path / "spectra.npz", flux=smooth, wavelength=fine)
    table = Table.read(predict(str(toy_runs[0]), str(tmp_path / "spectra.npz"), str(tmp_path / "stars.ecsv")))
    assert list(table["source_id"][:3]) == [1, 2, 3]
    assert np.abs(table["teff"] - own["teff"]).mean() < 0.5 * np.std(own["teff"])


def test_archive_files_are_read_as_they_come(toy_runs, tmp_path: Path, command):
    stars = Stars(4)
    path = write_bulk(tmp_path / "RvsMeanSpectrum_1-2.csv", stars)
    code, _, err = command("predict", f"run={toy_runs[0]}", f"spectra={path}", f"out={tmp_path / 'stars.fits'}")
    assert code == 0, err
    table = Table.read(tmp_path / "stars.fits")
    np.testing.assert_array_equal(np.sort(table["source_id"]), np.sort(stars.ids))
    assert np.all(table["flags"] & Quality.OUT_OF_DISTRIBUTION)  # a toy model has never seen calcium lines


def test_a_grid_that_is_not_covered_is_refused(model):
    wavelength = model.wavelength[5:]
    with pytest.raises(SpectangleError, match="the model needs 846.000 to 847.170 nm"):
        model.predict(np.ones((1, len(wavelength))), wavelength=wavelength)
    with pytest.raises(SpectangleError, match="Angstrom"):
        to_grid(model.wavelength * 10, np.ones((1, 40)), None, model.wavelength, "these")


def test_an_interruption_leaves_nothing_that_looks_complete(toy_runs, toy_survey: Path, tmp_path: Path, monkeypatch):
    def break_off(table, part):
        part.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setitem(star_table.WRITERS, ".ecsv", break_off)  # pyright: ignore[reportArgumentType]
    with pytest.raises(KeyboardInterrupt):
        predict(str(toy_runs[0]), str(toy_survey), str(tmp_path / "stars.ecsv"))
    assert list(tmp_path.iterdir()) == []


def test_parts_that_a_killed_process_left_are_removed(toy_runs, toy_survey: Path, tmp_path: Path):
    names = ["stars.ecsv.0123abcd.part", "stars.ecsv.0123abce.part", "other.ecsv.0123abcd.part", "stars.ecsv.mine.part"]
    for name in names:
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (0, 0) if name != names[1] else None)  # names[1] may be being written
    predict(str(toy_runs[0]), str(toy_survey), str(tmp_path / "stars.ecsv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], "stars.ecsv"])


def test_a_log_says_how_far_it_is(model, caplog, monkeypatch):
    monkeypatch.setattr(sys.modules[read_all.__module__], "EVERY_S", 0.0)
    caplog.set_level("INFO")
    flux = np.full((5, 40), 0.8, dtype=np.float32)
    for total, said in ((10, "5 of 10 stars read"), (None, "10 stars read")):
        read_all([model], InputSpectra(total, iter([StarChunk(np.arange(5), flux, None)] * 2)))
        assert said in caplog.text
        caplog.clear()


def test_a_survey_that_moved_is_found_where_the_user_says(toy_runs, tmp_path: Path):
    moved = write_toy_survey(tmp_path / "moved.h5")
    np.testing.assert_array_equal(
        load_stars(Run(toy_runs[2]), moved).test.source_id, load_stars(Run(toy_runs[2])).test.source_id
    )
    with pytest.raises(SpectangleError, match="content_hash"):
        load_stars(Run(toy_runs[2]), write_toy_survey(tmp_path / "other.h5", seed=1))


def test_the_table_says_what_the_run_was_trained_on_and_what_it_disentangled(
    toy_runs, model, toy_survey: Path, tmp_path: Path, command
):
    out = tmp_path / "stars.fits"
    code, printed, _ = command("predict", f"run={toy_runs[0]}", f"spectra={toy_survey}", f"out={out}")
    printed = " ".join(printed.split())
    assert code == 0 and printed.startswith("run 0 was trained on: toy") and "synthetic spectra only" not in printed
    assert "m_h, alpha_fe: disentangled from the latent by this run" in printed
    table = Table.read(out)
    assert table.meta["TRAINED"] == "toy" and table.meta["LOST"] == "m_h alpha_fe"
    assert "disentangled" in table["m_h"].description and "disentangled" not in table["teff"].description
    code, _, err = command(
        "predict",
        f"run={toy_runs[0]}",
        f"spectra={toy_survey}",
        f"out={tmp_path / 'less.ecsv'}",
        "disentangled=leave_out",
    )
    assert code == 0, err
    names = Table.read(tmp_path / "less.ecsv").colnames
    assert "teff_uncertainty" in names and not [name for name in names if name.startswith(("m_h", "alpha_fe"))]
    code, _, err = command(
        "predict", f"run={toy_runs[0]}", f"spectra={toy_survey}", f"out={tmp_path / 'no.ecsv'}", "disentangled=maybe"
    )
    assert code == 1 and "disentangled=maybe is not known" in err


@pytest.mark.parametrize("made_up", [True, False])
def test_a_run_of_synthetic_stars_warns_once_of_others(
    toy_runs, model, tmp_path: Path, toy_survey: Path, command, made_up: bool
):
    run, survey = tmp_path / "run", tmp_path / "survey.h5"
    shutil.copytree(toy_runs[0], run)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["survey"]["origin"] = "synthetic: made up"
    (run / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy(toy_survey, survey)
    with h5py.File(survey, "a") as file:
        file.attrs["origin"] = "synthetic: others" if made_up else "MILES"
    _, printed, err = command("predict", f"run={run}", f"spectra={survey}", f"out={tmp_path / 'stars.vot'}")
    assert " ".join((printed + err).split()).count("knows synthetic spectra only") == (0 if made_up else 1)
    assert Table.read(tmp_path / "stars.vot").colnames[0] == "source_id"
    assert "Trained on synthetic spectra only" in model_card(load(run), Run(run))
