"""One door for spectra: arrays of any kind in files and in Python give the same numbers, and what cannot be right is
refused.
"""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import astropy.units as u
import h5py
import numpy as np
import pytest
from archive_files import Stars, individual_table, raw_table, write_table
from astropy.table import MaskedColumn, Table

from spectangle.archives import Cuts, Gandalf, Pixels, Plain, prepare
from spectangle.archives.spectra.air import air_to_vacuum
from spectangle.data.load import load_stars
from spectangle.errors import SpectangleError
from spectangle.files import refuse_input
from spectangle.generation.generate import generate
from spectangle.inference.load import load
from spectangle.inference.model_grid import to_grid
from spectangle.inference.predict import predict
from spectangle.inference.quality import Quality
from spectangle.inference.spectra_input import check_arrays, open_spectra, star_ids, vacuum_grid
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey


@pytest.fixture(scope="module")
def model(toy_runs):
    return load(toy_runs[0])


@pytest.fixture(scope="module")
def spectra(toy_survey: Path):
    with Survey(toy_survey) as survey:
        return survey.flux(0, 6), survey.flux_error(0, 6)


def masked(values: np.ndarray, kind: str):
    """The same spectra with pixels 3 to 5 of star 2 missing, in the ways that arrays have for it."""
    mask = np.zeros(values.shape, dtype=bool)
    mask[2, 3:6] = True
    filled = np.where(mask, -9999, values)
    return {
        "nan": np.where(mask, np.nan, values),
        "fill": filled,
        "masked": np.ma.array(filled, mask=mask),
        "column": MaskedColumn(filled, mask=mask),
        "table": Table({"flux": np.ma.array(filled, mask=mask)})["flux"],
        "big-endian": np.where(mask, np.nan, values).astype(">f8"),
        "list": np.where(mask, np.nan, values).tolist(),
        "quantity": np.where(mask, np.nan, values) * u.dimensionless_unscaled,
    }[kind]


@pytest.mark.parametrize("kind", ["fill", "masked", "column", "table", "big-endian", "list", "quantity"])
def test_masks_are_masked_pixels_in_python_and_in_files(kind, toy_runs, model, spectra, tmp_path):
    flux, error = spectra
    expected = model.predict(masked(flux, "nan"), error)
    found = model.predict(masked(flux, kind), error)
    np.testing.assert_array_equal(found["teff"], expected["teff"])
    assert found["masked_fraction"][2] == pytest.approx(3 / 40) and not found["flags"][2] & Quality.NO_DATA
    np.testing.assert_array_equal(model.encode(masked(flux, kind)), model.encode(masked(flux, "nan")))
    np.testing.assert_array_equal(
        model.generate(masked(flux, kind), m_h=0.1), model.generate(masked(flux, "nan"), m_h=0.1)
    )
    if kind in ("fill", "big-endian"):
        np.savez(tmp_path / "a.NPZ".lower(), flux=masked(flux, kind), flux_error=error, wavelength=model.wavelength)
        table = Table.read(predict(str(toy_runs[0]), str(tmp_path / "a.npz"), str(tmp_path / "a.ecsv")))
        np.testing.assert_allclose(table["teff"], expected["teff"], rtol=1e-6)


def test_ids_of_any_shape_and_no_floats(model, spectra, toy_runs, tmp_path):
    flux, _ = spectra
    ids = 1234567890123078720 + 128 * np.arange(6)
    for given in (
        ids[:, None],
        ids.astype(str),
        ids.astype(np.uint64),
        np.ma.array(ids),
        ids.tolist(),
        ids.astype(">i8"),
    ):
        np.testing.assert_array_equal(model.predict(flux, source_id=given)["source_id"], ids)
    assert model.predict(flux[0], source_id=ids[0])["source_id"].tolist() == [ids[0]]
    for given in (
        ids.astype(float),
        ids.astype(float).tolist(),
        ids.astype(float).astype(object),
        Table({"a": ids.astype(float)})["a"],
    ):
        with pytest.raises(SpectangleError, match="lost"):
            model.predict(flux, source_id=given)
    with pytest.raises(SpectangleError, match="row 2: the spectrum has no source_id"):
        star_ids(np.ma.array(ids, mask=np.arange(6) == 1), 6, "these")
    np.savez(tmp_path / "one.npz", flux=flux[0], wavelength=model.wavelength, source_id=ids[0])
    np.savez(tmp_path / "six.npz", flux=flux, wavelength=model.wavelength, source_id=ids[:, None])
    for name, number in (("one", 1), ("six", 6)):
        table = Table.read(predict(str(toy_runs[0]), str(tmp_path / f"{name}.npz"), str(tmp_path / f"{name}.FITS")))
        np.testing.assert_array_equal(table["source_id"], ids[:number])


def test_ids_that_were_floats_are_seen_in_every_input(toy_runs, toy_survey, model, tmp_path, caplog):
    stars = Stars(60)
    rounded = stars.ids.astype(float).astype(np.int64)
    with Survey(toy_survey) as survey:
        flux = survey.flux(0, 60)
    np.savez(tmp_path / "a.npz", flux=flux, wavelength=model.wavelength, source_id=rounded)
    (tmp_path / "own.h5").write_bytes(toy_survey.read_bytes())
    with h5py.File(tmp_path / "own.h5", "r+") as file:
        file["source_id"][:] = np.resize(rounded, 400) + 4096 * (np.arange(400) // 60)
        file.attrs["origin"] = "observed"
    (tmp_path / "fold").mkdir()
    for i, one in enumerate(rounded):
        write_table(tmp_path / "fold" / f"{i:02d}.fits", individual_table(stars, i, with_ids=False), source_id=one)
    for name in ("a.npz", "own.h5", "fold"):
        with pytest.raises(SpectangleError, match="passed through float64"):
            predict(str(toy_runs[0]), str(tmp_path / name), str(tmp_path / "a.ecsv"))
    np.savez(tmp_path / "a.npz", flux=flux, wavelength=model.wavelength, source_id=np.arange(60) // 2 // 29)
    predict(str(toy_runs[0]), str(tmp_path / "a.npz"), str(tmp_path / "a.ecsv"))
    assert "2 source_id came more than once (the first is 0), in 60 of the table's rows" in caplog.text


def test_grids_may_have_a_unit(model, spectra, toy_runs, tmp_path):
    flux, _ = spectra
    angstrom = model.wavelength * 10
    np.testing.assert_array_equal(model.predict(flux, wavelength=angstrom * u.AA)["teff"], model.predict(flux)["teff"])
    with pytest.raises(SpectangleError, match="They look like Angstrom: convert them to nm"):
        model.predict(flux, wavelength=angstrom)
    np.savez(tmp_path / "a.npz", flux=flux, wavelength=angstrom)
    with pytest.raises(
        SpectangleError, match="They look like Angstrom: convert them, or state wavelength_unit=Angstrom"
    ):
        predict(str(toy_runs[0]), str(tmp_path / "a.npz"), str(tmp_path / "a.ecsv"))
    table = Table.read(
        predict(str(toy_runs[0]), str(tmp_path / "a.npz"), str(tmp_path / "a.ecsv"), wavelength_unit="Angstrom")
    )
    np.testing.assert_allclose(table["teff"], model.predict(flux)["teff"], rtol=1e-6)


def test_air_is_seen_by_the_door():
    stars = Stars(24, edge=0)
    with pytest.raises(
        SpectangleError, match="its place in air .*; in vacuum it is at 854.444. State medium=air to convert them"
    ):
        check_arrays(stars.flux, None, stars.wavelength - 0.235, "these", "medium")
    np.testing.assert_allclose(
        vacuum_grid(stars.wavelength - 0.235, "these", medium="air"), stars.wavelength, atol=5e-3
    )
    check_arrays(stars.flux, None, vacuum_grid(stars.wavelength - 0.235, "these", medium="air"), "these", "medium")
    check_arrays(stars.flux, None, stars.wavelength - 0.235, "these", "medium", stated=True)
    with pytest.raises(SpectangleError, match="medium=water is not known; it can be air, vacuum"):
        vacuum_grid(stars.wavelength, "these", medium="water")


@pytest.mark.parametrize("form", ["plain", "gandalf"])
def test_archives_convert_air(form, tmp_path):
    stars = Stars(5, edge=0)
    air = stars.wavelength - 0.235
    arrays = {
        "X": stars.flux,
        "params": np.column_stack(list(stars.labels.values())),
        "ids": stars.ids,
        "axis_labels": air,
    }
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    stars.table().write(tmp_path / "labels.ecsv")
    archive = (
        Gandalf(str(tmp_path), medium="air")
        if form == "gandalf"
        else Plain(
            str(tmp_path / "X.npy"),
            str(tmp_path / "labels.ecsv"),
            wavelength=str(tmp_path / "axis_labels.npy"),
            medium="air",
        )
    )
    prepare(archive, tmp_path / "my.h5", cuts=Cuts(g_min=None, g_max=None), pixels=Pixels(method="none"), report=False)
    with Survey(tmp_path / "my.h5") as survey:
        np.testing.assert_allclose(survey.wavelength, air_to_vacuum(air, "here"))
        assert abs(survey.wavelength[np.argmin(survey.flux().mean(0))] - 854.444) < 0.06


def test_files_of_a_star_each_are_read_together(model, tmp_path):
    stars = Stars(30)
    for i in range(30):
        if i > 19:  # the last ten without errors
            table = individual_table(stars, i)
            table.remove_column("flux_error")
        else:
            table = individual_table(stars, i)
        write_table(tmp_path / f"RVS_{i:02d}.fits", table)
    found = list(open_spectra(str(tmp_path), model.wavelength).chunks)
    assert [len(chunk) for chunk in found] == [20, 10]
    flux, error = to_grid(stars.wavelength, stars.flux, stars.error, model.wavelength, "these")
    np.testing.assert_array_equal(np.concatenate([chunk.source_id for chunk in found]), stars.ids)
    np.testing.assert_allclose(found[0].flux, flux[:20], rtol=1e-6)
    np.testing.assert_allclose(found[0].flux_error, error[:20], rtol=1e-6)
    assert found[1].flux_error is None


def test_a_stated_medium_is_believed(model, tmp_path):
    stars = Stars(24, edge=0)
    table = raw_table(stars, with_wavelength=True)
    table["wavelength"] -= 0.235
    path = str(write_table(tmp_path / "RVS_RAW.fits", table))
    with pytest.raises(SpectangleError, match="its place in air"):
        list(open_spectra(path, model.wavelength).chunks)
    (chunk,) = open_spectra(path, model.wavelength, medium="vacuum").chunks
    assert len(chunk) == 24
    with pytest.raises(SpectangleError, match="medium=air came with .*only arrays"):
        open_spectra(path, model.wavelength, medium="air")


def test_what_is_read_is_never_written_over(toy_runs, tmp_path):
    stars = Stars(2)
    (tmp_path / "own").mkdir()
    own = write_table(tmp_path / "own" / "RVS.fits", raw_table(stars))
    whole, other = own.read_bytes(), tmp_path / "link.fits"
    other.symlink_to(own)
    for spectra, out, said in (
        (own, own, "is read and would be written over"),
        (own, other, "is read and would be written over"),
        (own, own.parent / ".." / "own" / "RVS.fits", "is read and would be written over"),
        (own.parent, own, "lies in the folder"),
        (tmp_path, own.parent / "labels.fits", "read as one of them the next time. Write it to another folder"),
        (own.parent / "*.fits", own.parent / "labels.fits", "is among the files that are read"),
        (own.parent / "*.fits", own.parent / ".." / "own" / "labels.fits", "is among the files that are read"),
        (tmp_path / "**" / "*.fits", own.parent / "labels.fits", "is among the files that are read"),
    ):
        with pytest.raises(SpectangleError, match=said):
            predict(str(toy_runs[0]), str(spectra), str(out), overwrite=True)
    assert own.read_bytes() == whole and [path.name for path in own.parent.iterdir()] == ["RVS.fits"]
    for spectra, out in (
        (own.parent, tmp_path / "labels.fits"),
        (own.parent / "*.fits", own.parent / "labels.ecsv"),
        (tmp_path / "*.fits", own.parent / "labels.fits"),
        (own, own.parent / "labels.fits"),
    ):
        refuse_input(out, (str(spectra), None))


def test_one_label_for_all_and_more_stars_than_there_are(toy_runs, model, tmp_path, spectra):
    with Survey(
        generate(str(toy_runs[0]), str(tmp_path / "all.H5"), {"m_h": 0.1}, n_stars=int(1e9), figure=False)
    ) as survey:
        assert len(survey) == len(load_stars(Run(toy_runs[0])).test)
    with pytest.raises(SpectangleError, match="m_h has values that are missing or not finite"):
        model.generate(spectra[0], m_h=np.nan)


def test_stars_without_a_pixel_are_left_out_of_what_is_generated(toy_runs, model, spectra, tmp_path):
    flux = spectra[0].copy()
    flux[1] = np.nan
    np.savez(tmp_path / "a.npz", flux=flux, wavelength=model.wavelength)
    made = generate(
        str(toy_runs[0]), str(tmp_path / "out.h5"), {"m_h": 0.1}, spectra=str(tmp_path / "a.npz"), figure=False
    )
    with Survey(made) as survey:
        assert survey.source_id.tolist() == [1, 3, 4, 5, 6] and np.isfinite(survey.flux()).all()


def test_a_model_that_was_used_can_be_copied(model, spectra):
    """The networks laid out by oneDNN cannot: NotImplementedError of OpaqueTensorImpl."""
    latent = model.encode(spectra[0])
    model.predict(*spectra)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.encode(spectra[0]).tobytes() == latent.tobytes()
        for errors in (None, spectra[1]):
            theirs, ours = other.predict(spectra[0], errors), model.predict(spectra[0], errors)
            assert all(np.array_equal(theirs[name], ours[name], equal_nan=True) for name in ("teff", "chi2", "flags"))


def test_arrays_of_another_shape_are_a_sentence(model, spectra):
    flux = spectra[0][:3]
    latent, labels = model.encode(flux), np.ones((3, len(model.labels)))
    for call in (model.predict, model.encode, model.generate):
        with pytest.raises(SpectangleError, match="there is none; give at least one"):
            call(flux[:0])
    for wrong in (
        (latent[:2], labels),
        (latent[:, 1:], labels),
        (latent, labels[:, 1:]),
        (latent[0], labels[0]),
        (1, 2),
    ):
        with pytest.raises(SpectangleError, match=r"latent has the shape .* expected are \[n, \d+\] and \[n, \d+\]"):
            model.decode(*wrong)
    with pytest.raises(SpectangleError, match=r"teff has the shape \(2,\) and there are 3 spectra"):
        model.generate(flux, teff=[5000, 6000])
    with pytest.raises(SpectangleError, match="teff is of type .*; numbers were expected"):
        model.generate(flux, teff="hot")
    assert np.array_equal(model.generate(flux, teff=6 * u.kK), model.generate(flux, teff=[6000.0] * 3))


def test_a_locked_file_is_no_truncated_one(toy_survey, tmp_path):
    path = tmp_path / "my.h5"
    path.write_bytes(toy_survey.read_bytes())
    code = f"import h5py, time; f = h5py.File({str(path)!r}, 'a'); print('open', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(
            SpectangleError, match="cannot be locked .*: another program has it open.* HDF5_USE_FILE_LOCKING=FALSE"
        ) as error:
            Survey(path)
        assert "truncated" not in str(error.value)
    finally:
        other.kill()
        other.wait()
    assert h5py.is_hdf5(path) and len(Survey(path)) == 400
