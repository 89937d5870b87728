"""Readers: every form of the archives gives the numbers that were written, and the two real spectra read in full."""

import gzip
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from archive_files import (
    Stars,
    bulk_rows,
    individual_table,
    raw_table,
    write_apogee,
    write_bulk,
    write_galah,
    write_table,
)
from astropy.io import ascii as astropy_ascii
from astropy.io import fits
from astropy.table import Table

from spectangle.archives import Gandalf, Plain
from spectangle.archives.gaia.gaia_datalink import read_gaia
from spectangle.archives.gaia.gaia_files import COLUMNS
from spectangle.archives.labels.apogee import read_apogee
from spectangle.archives.labels.galah import read_galah
from spectangle.archives.labels.plain_labels import read_label_table
from spectangle.archives.spectra.resample import Pixels, bin_pixels, resample_pixels
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.archives.tables.fits_columns import read_fits_columns
from spectangle.survey.wavelengths import linear_grid

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def read_all(path: Path, wanted=None, columns=None, limit: int = 0):
    """Everything of one file: ids, flux, flux_error, wavelength and the bad rows."""
    bad = BadRows(limit)
    chunks = list(read_gaia(path, bad, COLUMNS | (columns or {}), linear_grid, wanted))
    ids = np.concatenate([c.source_id for c in chunks])
    return (
        ids,
        np.concatenate([c.flux for c in chunks]),
        np.concatenate([c.flux_error for c in chunks]),
        chunks[0].wavelength,
        bad,
    )


def assert_same(result, stars: Stars, which=slice(None)):
    ids, flux, error, wavelength, _ = result
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, stars.ids[which])
    np.testing.assert_array_equal(flux, stars.flux[which])
    np.testing.assert_array_equal(error, stars.error[which])
    np.testing.assert_allclose(wavelength, stars.wavelength, atol=1e-5)


@pytest.fixture(scope="module")
def stars():
    return Stars(5)


@pytest.mark.parametrize("name", ["RvsMeanSpectrum_000000-003111.csv.gz", "RvsMeanSpectrum_000000-003111.csv"])
def test_bulk(tmp_path, stars, name):
    assert_same(read_all(write_bulk(tmp_path / name, stars)), stars)


@pytest.mark.parametrize("n_pixels", [2401, 1601])
def test_bulk_of_any_number_of_pixels(tmp_path, n_pixels):
    stars = Stars(3, n_pixels=n_pixels)
    assert_same(read_all(write_bulk(tmp_path / "a.csv.gz", stars)), stars)


def test_bulk_reads_only_wanted_stars(tmp_path, stars):
    path = write_bulk(tmp_path / "a.csv.gz", stars)
    assert_same(read_all(path, wanted=stars.ids[[1, 3]]), stars, [1, 3])


def test_bulk_in_many_blocks_numbers_its_rows(tmp_path, monkeypatch):
    import spectangle.archives.gaia.gaia_bulk as module

    stars = Stars(30, n_pixels=201)
    rows = bulk_rows(stars)
    rows[4] = "17,broken"
    rows[20] = rows[20].replace("[", "[1.0,", 1)
    monkeypatch.setattr(module, "BLOCK", 20_000)
    *_, bad = read_all(write_bulk(tmp_path / "a.csv.gz", stars, rows), limit=2)
    assert bad.count == 2
    assert "row 5: it has 2 fields and the header names 9" in bad.sentences[0]
    assert "row 21: flux: the list has 202 values and 201 were expected" in bad.sentences[1]


def test_columns_in_another_order_and_extra_ones(tmp_path, stars):
    order = ["solution_id", "flux_error", "extra", "ra", "flux", "source_id"]
    assert_same(read_all(write_bulk(tmp_path / "a.csv.gz", stars, columns=order)), stars)


@pytest.mark.parametrize("suffix", [".csv", ".ecsv", ".xml", ".fits"])
@pytest.mark.parametrize("product", ["RVS-Gaia DR3", "MEAN_SPECTRUM_RVS-Gaia DR4"])
def test_individual(tmp_path, stars, suffix, product):
    path = write_table(tmp_path / f"{product} {stars.ids[2]}{suffix}", individual_table(stars, 2))
    assert_same(read_all(path), stars, [2])


@pytest.mark.parametrize("suffix", [".ecsv", ".xml", ".fits"])
def test_individual_with_its_id_in_the_header(tmp_path, stars, suffix):
    path = write_table(
        tmp_path / f"spectrum{suffix}", individual_table(stars, 1, with_ids=False), source_id=stars.ids[1]
    )
    assert_same(read_all(path), stars, [1])


def test_individual_with_its_id_in_the_file_name(tmp_path, stars):
    path = write_table(tmp_path / f"RVS-Gaia DR3 {stars.ids[4]}.csv", individual_table(stars, 4, with_ids=False))
    assert_same(read_all(path), stars, [4])


@pytest.mark.parametrize("suffix", [".ecsv", ".xml", ".fits"])
@pytest.mark.parametrize("with_wavelength", [False, True])
def test_raw(tmp_path, stars, suffix, with_wavelength):
    assert_same(read_all(write_table(tmp_path / f"RVS_RAW{suffix}", raw_table(stars, with_wavelength))), stars)


def test_raw_csv(tmp_path, stars):
    path = tmp_path / "RVS_RAW.csv"
    write_bulk(path, stars)
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#")))
    assert_same(read_all(path), stars)


def test_zip_of_individual_and_raw(tmp_path, stars):
    one = write_table(tmp_path / f"RVS-Gaia DR3 {stars.ids[0]}.xml", individual_table(stars, 0))
    rest = Stars(5)
    raw = write_table(tmp_path / "RVS_RAW.fits", raw_table(rest)[1:])
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        archive.write(one, one.name)
        archive.write(raw, raw.name)
    assert_same(read_all(tmp_path / "download.zip"), stars)


def test_a_release_with_other_names_and_units(tmp_path, stars):
    table = individual_table(stars, 0)
    table.rename_columns(["flux", "flux_error"], ["normalised_flux", "normalised_flux_error"])
    table["wavelength"] = table["wavelength"] * 10
    table["wavelength"].unit = "Angstrom"
    path = write_table(tmp_path / "MEAN_SPECTRUM_RVS.fits", table)
    assert_same(read_all(path, columns={"flux": "normalised_flux", "flux_error": "normalised_flux_error"}), stars, [0])


@pytest.mark.parametrize("name, n_missing", [("kepler93", 7), ("hd176650", 0)])
def test_the_real_spectra(name, n_missing):
    path = REAL / f"gaia_dr3_rvs_{name}.csv.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not beside the project (ESA/Gaia/DPAC; isabelangelo/gaiaspec)")
    ids, flux, error, wavelength, _ = read_all(path)
    with gzip.open(path, "rt") as file:
        table = astropy_ascii.read(file.read(), format="csv", fast_reader=False)
    assert len(table) == flux.shape[1] == 2401
    assert ids.tolist() == [int(table["source_id"][0])]
    np.testing.assert_array_equal(wavelength, np.asarray(table["wavelength"]))
    for values, column in ((flux[0], table["flux"]), (error[0], table["flux_error"])):
        expected = np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
        assert np.isnan(values).sum() == np.isnan(expected).sum() == n_missing
        np.testing.assert_allclose(values, expected, rtol=1e-6)
    binned, binned_error = Pixels(min_good=3).apply(wavelength, flux, error)
    f, e = flux[0, 300:303].astype(float), error[0, 300:303].astype(float)
    assert binned.shape == (1, 800)
    assert binned[0, 100] == pytest.approx(np.average(f, weights=1 / e**2), rel=1e-5)
    assert binned_error[0, 100] == pytest.approx(np.sum(1 / e**2) ** -0.5, rel=1e-5)
    assert np.isnan(binned).sum() == -(-max(n_missing - 1, 0) // 3)


@pytest.mark.parametrize("method", ["inverse_variance", "mean"])
def test_bin_pixels_ignores_missing_ones(method):
    flux = np.array([[1, 2, np.nan, np.nan, np.nan, 5, 9]], dtype=np.float32)
    error = np.array([[1, 2, 1, 1, 1, 0.5, 1]], dtype=np.float32)
    binned, binned_error = bin_pixels(flux, error, 3, method, min_good=1)
    weights = [1, 1 / 4] if method == "inverse_variance" else [1, 1]
    assert binned[0].tolist() == pytest.approx([np.average([1, 2], weights=weights), 5])
    assert binned_error[0].tolist() == pytest.approx([1.25**-0.5 if method == "inverse_variance" else 5**0.5 / 2, 0.5])
    assert np.isnan(bin_pixels(flux, error, 3, method, min_good=2)[0][0]).tolist() == [False, True]


def test_equal_errors_make_the_two_means_equal(stars):
    error = np.full_like(stars.flux, 0.01)
    one, two = (bin_pixels(stars.flux, error, 3, method)[0] for method in ("inverse_variance", "mean"))
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_resampling_conserves_flux(stars):
    flux, error = stars.flux[:, :2394], stars.error[:, :2394]
    old = stars.wavelength[:2394]
    new = np.linspace(847, 868, 500)
    out, out_error = resample_pixels(old, flux, error, new)
    step = new[1] - new[0]
    low, high = new[0] - step / 2, new[-1] + step / 2
    covered = np.clip(np.minimum(old + 0.005, high) - np.maximum(old - 0.005, low), 0, None)
    np.testing.assert_allclose(out.sum(axis=1) * step, flux.astype(float) @ covered, rtol=1e-5)
    assert np.isfinite(out_error).all()


def test_resampling_to_whole_bins_is_the_mean(stars):
    grid = stars.wavelength[:2400].reshape(800, 3).mean(axis=1)
    expected = bin_pixels(stars.flux, stars.error, 3, "mean", min_good=3)
    for a, b in zip(resample_pixels(stars.wavelength, stars.flux, stars.error, grid, 1.0), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4)


@pytest.mark.parametrize("fill, expected", [("nan", np.nan), ("one", 1.0), ("interpolate", 2.5)])
def test_fill(fill, expected):
    filled = Pixels(fill=fill).filled(np.array([[2, np.nan, 3]], dtype=np.float32))
    np.testing.assert_array_equal(filled[0, 1], np.float32(expected))


def test_apogee(tmp_path, stars):
    labels = read_apogee(write_apogee(tmp_path / "allStar.fits", stars))
    np.testing.assert_array_equal(labels.source_id, stars.ids)
    for name, values in stars.labels.items():
        np.testing.assert_array_equal(labels.labels[name], values.astype(np.float32))
    np.testing.assert_allclose(labels.g_mag, stars.g, rtol=1e-6)


def test_galah_takes_m_h_from_fe_h_and_g_from_its_gaia_table(tmp_path, stars):
    path = write_galah(tmp_path / "galah.fits", stars, tmp_path / "gaia.fits")
    labels = read_galah(path, tmp_path / "gaia.fits")
    np.testing.assert_array_equal(labels.source_id, stars.ids)
    np.testing.assert_array_equal(labels.labels["m_h"], stars.labels["m_h"].astype(np.float32))
    np.testing.assert_allclose(labels.g_mag, stars.g, rtol=1e-6)


def test_fits_columns_need_no_memory_for_the_rest(tmp_path):
    import tracemalloc

    n = 20_000
    data = np.zeros(n, dtype=[("ID", ">i8"), ("BIG", ">f4", (500,)), ("X", ">f4")])
    data["ID"], data["X"] = np.arange(n), np.arange(n) / 7
    fits.BinTableHDU(data).writeto(tmp_path / "big.fits")
    del data
    tracemalloc.start()
    result = read_fits_columns(tmp_path / "big.fits", {"id": "ID", "x": "X"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(result["id"], np.arange(n))
    np.testing.assert_array_equal(result["x"], (np.arange(n) / 7).astype(np.float32))
    assert 3 * peak < (tmp_path / "big.fits").stat().st_size


@pytest.mark.parametrize("change", ["gzip", "unsigned"])
def test_fits_columns_through_astropy(tmp_path, change):
    table = Table(
        {"ID": np.arange(5) + 2**62, "X": np.arange(5, dtype=np.uint16 if change == "unsigned" else np.int16)}
    )
    path = tmp_path / ("a.fits.gz" if change == "gzip" else "a.fits")
    table.write(path)
    result = read_fits_columns(path, {"id": "ID", "x": "X"})
    np.testing.assert_array_equal(result["id"], np.arange(5) + 2**62)
    np.testing.assert_array_equal(result["x"], np.arange(5))


@pytest.mark.parametrize("suffix", [".ecsv", ".csv", ".fits", ".xml"])
def test_label_table(tmp_path, stars, suffix):
    path = write_table(tmp_path / f"labels{suffix}", stars.table(teff_error=np.full(5, 20.0)))
    labels = read_label_table(path, BadRows())
    np.testing.assert_array_equal(labels.source_id, stars.ids)
    np.testing.assert_array_equal(labels.labels["logg"], stars.labels["logg"].astype(np.float32))
    assert set(labels.errors) == {"teff"}


def test_plain(tmp_path, stars):
    np.save(tmp_path / "flux.npy", stars.flux)
    np.save(tmp_path / "error.npy", stars.error)
    np.save(tmp_path / "wavelength.npy", stars.wavelength * 10)
    stars.table().write(tmp_path / "labels.ecsv")
    names = {
        "spectra": "flux.npy",
        "labels_table": "labels.ecsv",
        "flux_error": "error.npy",
        "wavelength": "wavelength.npy",
    }
    source = Plain(**{key: str(tmp_path / name) for key, name in names.items()}, wavelength_unit="Angstrom")
    [[path]] = source.work()
    [chunk] = source.read(path, BadRows())
    assert_same((chunk.source_id, chunk.flux, chunk.flux_error, chunk.wavelength, None), stars)
    np.testing.assert_array_equal(source.labels(BadRows()).labels["teff"], stars.labels["teff"].astype(np.float32))


@pytest.mark.parametrize("ids", ["gaia", "names"])
def test_gandalf(tmp_path, stars, ids):
    np.save(tmp_path / "X.npy", stars.flux)
    np.save(tmp_path / "params.npy", np.column_stack(list(stars.labels.values())))
    np.save(tmp_path / "ids.npy", stars.ids if ids == "gaia" else np.array([f"2M{i:08d}" for i in range(5)]))
    np.save(tmp_path / "axis_labels.npy", stars.wavelength)
    source = Gandalf(str(tmp_path))
    [chunk] = source.read(tmp_path / "X.npy", BadRows())
    np.testing.assert_array_equal(chunk.source_id, stars.ids if ids == "gaia" else np.arange(1, 6))
    np.testing.assert_array_equal(chunk.flux, stars.flux)
    np.testing.assert_array_equal(
        source.labels(BadRows()).labels["alpha_fe"], stars.labels["alpha_fe"].astype(np.float32)
    )


def test_grid_follows_the_config():
    assert partial(linear_grid, start=840.0, step=0.025)(5).tolist() == [840.0, 840.025, 840.05, 840.075, 840.1]
