"""Bad input: one sentence that names the file and the row, a non-zero exit, and skipping only up to max_bad_rows."""

import gzip
import hashlib
import re

import numpy as np
import pytest
from archive_files import (
    BULK_COLUMNS,
    Stars,
    bulk_rows,
    individual_table,
    list_text,
    raw_table,
    write_apogee,
    write_bulk,
    write_galah,
    write_table,
)
from astropy.table import Table

from spectangle.archives import Cuts, GaiaFiles, Gandalf, LabelSources, Pixels, Plain, prepare
from spectangle.archives.gaia.gaia_datalink import read_gaia
from spectangle.archives.gaia.gaia_files import COLUMNS
from spectangle.archives.labels.apogee import read_apogee
from spectangle.archives.labels.galah import read_galah
from spectangle.archives.labels.plain_labels import read_label_table
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey
from spectangle.survey.source_ids import as_source_ids, check_not_rounded, parse_id
from spectangle.survey.wavelengths import VacuumCheck, check_vacuum, linear_grid

NO_MAGNITUDE = Cuts(g_min=None, g_max=None)


@pytest.fixture
def stars():
    return Stars(12, n_pixels=2401, edge=0)


@pytest.fixture
def folder(tmp_path, stars):
    """A folder of one bulk file and a table of labels."""
    (tmp_path / "rvs").mkdir()
    write_bulk(tmp_path / "rvs" / "RvsMeanSpectrum_0.csv.gz", stars)
    stars.table().write(tmp_path / "labels.ecsv")
    return tmp_path


def run(folder, max_bad_rows: int = 0, pixels: Pixels | None = None, **archive):
    source = GaiaFiles(str(folder / "rvs"), **archive)
    labels = LabelSources(table=str(folder / "labels.ecsv"))
    return prepare(source, folder / "my.h5", labels, pixels=pixels, max_bad_rows=max_bad_rows, report=False)


def refused(function, *words) -> str:
    """The sentence with which a call is refused; it must hold all words."""
    with pytest.raises(SpectangleError) as caught:
        function()
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, f"'{word}' is not in: {sentence}"
    return sentence


def bulk(folder):
    return folder / "rvs" / "RvsMeanSpectrum_0.csv.gz"


def nothing_written(folder):
    return not (folder / "my.h5").exists() and not list(folder.glob("*.part"))


def test_truncated_gzip(folder, stars):
    content = bulk(folder).read_bytes()
    bulk(folder).write_bytes(content[: len(content) * 2 // 3])
    refused(lambda: run(folder), "RvsMeanSpectrum_0.csv.gz", "truncated", "row")
    assert nothing_written(folder)


def test_truncated_plain_csv_loses_its_last_row(folder, stars):
    text = gzip.decompress(bulk(folder).read_bytes())
    bulk(folder).unlink()
    (folder / "rvs" / "a.csv").write_bytes(text[:-40_000])
    refused(lambda: run(folder), "a.csv", "row 12")
    assert run(folder, max_bad_rows=1).tally.after_snr == 11


def test_empty_and_foreign_files(folder):
    bulk(folder).write_bytes(gzip.compress(b""))
    refused(lambda: run(folder), "RvsMeanSpectrum_0.csv.gz", "empty")
    bulk(folder).write_bytes(b"not gzip at all")
    refused(lambda: run(folder), "RvsMeanSpectrum_0.csv.gz", "download the file again")


def test_md5(folder):
    good = hashlib.md5(bulk(folder).read_bytes()).hexdigest()
    sums = folder / "rvs" / "_MD5SUM.txt"
    sums.write_text(f"{'0' * 32}  RvsMeanSpectrum_0.csv.gz\n")
    refused(lambda: run(folder), "RvsMeanSpectrum_0.csv.gz", "MD5", "damaged")
    assert run(folder, verify_md5=False).tally.after_snr == 12
    (folder / "my.h5").unlink()
    sums.write_text(f"{good}  RvsMeanSpectrum_0.csv.gz\n")
    from spectangle.archives.gaia import checksum

    checksum._sums.cache_clear()
    assert run(folder).tally.after_snr == 12


@pytest.mark.parametrize("column", ["source_id", "flux"])
def test_missing_column(folder, stars, column):
    write_bulk(bulk(folder), stars, columns=[name for name in BULK_COLUMNS if name != column])
    refused(lambda: run(folder), "RvsMeanSpectrum_0.csv.gz", f"no column '{column}'", "solution_id")


def test_extra_column_changes_nothing(folder, stars):
    run(folder)
    with Survey(folder / "my.h5") as survey:
        expected = survey.flux()
    (folder / "my.h5").unlink()
    write_bulk(bulk(folder), stars, columns=["new", *BULK_COLUMNS, "newer"])
    run(folder)
    with Survey(folder / "my.h5") as survey:
        np.testing.assert_array_equal(survey.flux(), expected)


def test_catalogues_without_a_column(tmp_path, stars):
    write_apogee(tmp_path / "a.fits", stars)
    table = Table.read(tmp_path / "a.fits", hdu=1)
    table.remove_column("ALPHA_M")
    table.write(tmp_path / "b.fits")
    refused(lambda: read_apogee(tmp_path / "b.fits"), "b.fits", "ALPHA_M", "TEFF")
    refused(lambda: read_galah(write_galah(tmp_path / "g.fits", stars)), "g.fits", "labels.galah_gaia")
    refused(lambda: read_apogee(tmp_path / "none.fits"), "none.fits", "There is no file")


def test_truncated_fits(tmp_path):
    path = write_apogee(tmp_path / "a.fits", Stars(2000, n_pixels=50))
    path.write_bytes(path.read_bytes()[:100_000])
    refused(lambda: read_apogee(path), "a.fits", "truncated")


def test_duplicate_spectra(folder, stars):
    rows = bulk_rows(stars)
    write_bulk(bulk(folder), stars, [*rows, rows[3]])
    refused(lambda: run(folder), "RvsMeanSpectrum_0.csv.gz, row 13", str(stars.ids[3]), "second time")
    assert nothing_written(folder)
    result = run(folder, max_bad_rows=1)
    assert result.tally.after_snr == 12 and result.bad.count == 1


def test_duplicate_labels(folder, stars):
    table = stars.table()
    table["source_id"][5] = table["source_id"][2]
    table.write(folder / "labels.ecsv", overwrite=True)
    refused(lambda: run(folder), "labels.ecsv", str(stars.ids[2]), "rows 3 and 6")


def test_ids_as_floats(folder, tmp_path, stars):
    rows = bulk_rows(stars)
    rows[4] = re.sub(r"^\d+", f"{float(stars.ids[4]):.15e}", rows[4])
    write_bulk(bulk(folder), stars, rows)
    refused(lambda: run(folder, max_bad_rows=5), "RvsMeanSpectrum_0.csv.gz, row 5", "lost its last digits")
    table = stars.table()
    table["source_id"] = table["source_id"].astype(float)
    table.write(tmp_path / "float.fits")
    refused(lambda: read_label_table(tmp_path / "float.fits", BadRows()), "float.fits", "float64", "lost")
    write_apogee(tmp_path / "a.fits", stars, GAIAEDR3_SOURCE_ID=stars.ids.astype(float))
    refused(lambda: read_apogee(tmp_path / "a.fits"), "a.fits", "GAIAEDR3_SOURCE_ID", "float64")


def test_integers_that_were_floats_once(tmp_path):
    stars = Stars(60, n_pixels=50, seed=3)
    rounded = stars.ids.astype(np.float64).astype(np.int64)
    assert (rounded != stars.ids).any()
    check_not_rounded(stars.ids, "a")
    refused(lambda: check_not_rounded(rounded, "a.csv"), "a.csv", "float64", "last digits")
    stars.ids = rounded
    refused(
        lambda: list(read_gaia(write_bulk(tmp_path / "b.csv.gz", stars), BadRows(), COLUMNS, linear_grid)),
        "b.csv.gz",
        "float64",
    )
    refused(lambda: read_label_table(write_table(tmp_path / "c.csv", stars.table()), BadRows()), "c.csv", "float64")


@pytest.mark.parametrize("bits", [52, 59])
def test_small_ids_lose_nothing_in_floats(bits):
    check_not_rounded((np.arange(200) << 7) + (1 << bits), "a")


@pytest.mark.parametrize("text", ["2MASS J1234", "12.5x"])
def test_ids_that_are_no_numbers(text):
    refused(lambda: as_source_ids(np.array(["12", text]), "a.csv"), "a.csv, row 2", f"'{text}'")


@pytest.mark.parametrize("value", [np.nan, -9999.0, -9999.99])
def test_missing_labels_of_a_table(folder, stars, value):
    table = stars.table()
    table["logg"][7] = value
    table.write(folder / "labels.ecsv", overwrite=True)
    assert run(folder).tally.after_snr == 11  # cut in the funnel
    with Survey(folder / "my.h5") as survey:
        assert stars.ids[7] not in survey.source_id


@pytest.mark.parametrize("value", [np.nan, -9999.0])
def test_missing_labels_of_a_catalogue_are_a_cut(folder, stars, value):
    logg = stars.labels["logg"].astype(np.float32)
    logg[[1, 2]] = value
    write_apogee(folder / "a.fits", stars, LOGG=logg)
    result = prepare(
        GaiaFiles(str(folder / "rvs")), folder / "my.h5", LabelSources(apogee=str(folder / "a.fits")), report=False
    )
    assert next(s["removed"] for s in result.funnel.steps if s["step"] == "every label measured") == 2
    assert result.tally.after_snr == 10


@pytest.mark.parametrize("value", [0.0, -0.01])
def test_flux_error_must_be_positive(folder, stars, value):
    stars.error[6, 100] = value
    write_bulk(bulk(folder), stars)
    refused(lambda: run(folder), "RvsMeanSpectrum_0.csv.gz, row 7", f"flux_error is {value:g} at pixel 100")
    assert run(folder, max_bad_rows=1).tally.after_snr == 11
    (folder / "my.h5").unlink()
    assert run(folder, pixels=Pixels(nonpositive_error="mask_pixel")).tally.after_snr == 12


def test_a_star_without_a_good_pixel(folder, stars):
    stars.flux[2] = np.nan
    write_bulk(bulk(folder), stars)
    refused(lambda: run(folder), "RvsMeanSpectrum_0.csv.gz, row 3", str(stars.ids[2]), "no good pixel")
    assert run(folder, max_bad_rows=1).tally.after_snr == 11


@pytest.mark.parametrize(
    "broken, reason",
    [
        (lambda row: row.replace("[", "[0.5,", 1), "2402 values and 2401"),
        (lambda row: "1,2,3", "3 fields"),
        (lambda row: re.sub(r"^\d+", "", row), "no integer"),
        (lambda row: re.sub(r'"\[.*?\]"', "null", row, count=1), "missing"),
        (lambda row: re.sub(r"\[[^,]*,", "[abc,", row, count=1), "no number"),
    ],
)
def test_bad_rows_are_counted_and_skipped_up_to_a_limit(folder, stars, broken, reason):
    rows = bulk_rows(stars)
    rows[8] = broken(rows[8])
    write_bulk(bulk(folder), stars, rows)
    refused(lambda: run(folder), "RvsMeanSpectrum_0.csv.gz, row 9", reason, "max_bad_rows=0")
    result = run(folder, max_bad_rows=1)
    assert result.tally.after_snr == 11 and result.bad.count == 1
    with Survey(folder / "my.h5") as survey:
        assert set(survey.source_id) == set(np.delete(stars.ids, 8))


def test_bad_rows_of_all_files_count_together(folder, stars):
    bulk(folder).unlink()
    for i in range(3):
        rows = bulk_rows(stars)[i * 4 : i * 4 + 4]
        rows[1] = "1,2"
        write_bulk(folder / "rvs" / f"RvsMeanSpectrum_{i}.csv.gz", stars, rows)
    refused(lambda: run(folder, max_bad_rows=2), "3 bad row(s)", "row 2")
    assert run(folder, max_bad_rows=3).tally.after_snr == 9


@pytest.mark.parametrize("unit", ["Angstrom", "micron"])
def test_wavelengths_in_the_wrong_unit(tmp_path, stars, unit):
    table = individual_table(stars, 0)
    factor = {"Angstrom": 10, "micron": 1e-3}[unit]
    table["wavelength"] = np.asarray(table["wavelength"]) * factor
    path = write_table(tmp_path / "a.csv", table)
    refused(lambda: list(read_gaia(path, BadRows(), COLUMNS, linear_grid)), "a.csv", f"look like {unit}")
    np.save(tmp_path / "flux.npy", stars.flux)
    np.save(tmp_path / "wavelength.npy", stars.wavelength * 10)
    stars.table().write(tmp_path / "labels.ecsv")
    plain = {
        "spectra": str(tmp_path / "flux.npy"),
        "labels_table": str(tmp_path / "labels.ecsv"),
        "wavelength": str(tmp_path / "wavelength.npy"),
    }
    refused(
        lambda: prepare(Plain(**plain), tmp_path / "my.h5", cuts=NO_MAGNITUDE),
        "wavelength.npy",
        "archive.wavelength_unit=Angstrom",
    )


def test_wavelengths_in_air(tmp_path):
    stars = Stars(24, edge=0)
    np.save(tmp_path / "flux.npy", stars.flux)
    np.save(tmp_path / "wavelength.npy", stars.wavelength - 0.235)
    stars.table().write(tmp_path / "labels.ecsv")
    plain = {
        "spectra": str(tmp_path / "flux.npy"),
        "labels_table": str(tmp_path / "labels.ecsv"),
        "wavelength": str(tmp_path / "wavelength.npy"),
    }
    refused(lambda: prepare(Plain(**plain), tmp_path / "my.h5"), "flux.npy", "Ca II", "air", "vacuum")
    table = individual_table(stars, 0)
    table["wavelength"].description = "Wavelength in air"
    path = write_table(tmp_path / "a.xml", table)
    refused(lambda: list(read_gaia(path, BadRows(), COLUMNS, linear_grid)), "a.xml", "air", "vacuum")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1_0", "which is no integer"),
        ("\u0661\u0660", "which is no integer"),
        ("9223372036854775808", "ids have 63 bits"),
        ("-99999999999999999999", "ids have 63 bits"),
        (b"12\xff4", r"came as '12\xff4', which is no integer"),
        ("1.5e18", "a float"),
    ],
)
def test_text_that_is_no_id(text, said):
    refused(lambda: parse_id(text, "a.csv, row 2"), "a.csv, row 2", said)
    refused(lambda: as_source_ids(np.array(["7", text], dtype=object), "a.csv"), "a.csv, row 2", said)
    assert parse_id(" 12 ", "a") == 12 and parse_id(b"9223372036854775807", "a") == 2**63 - 1


def test_ids_of_more_bits_are_bad_rows(tmp_path, stars):
    rows = bulk_rows(stars)
    for row, text in ((1, "9999999999999999999"), (3, "1_0")):
        rows[row] = text + rows[row][rows[row].index(",") :]
    bad = BadRows(2)
    path = write_bulk(tmp_path / "a.csv", stars, rows)
    chunks = list(read_gaia(path, bad, COLUMNS, linear_grid))
    assert bad.count == 2 and "row 2: source_id came as '9999999999999999999'" in bad.sentences[0]
    assert sum(map(len, chunks)) == len(stars.ids) - 2
    named = write_table(tmp_path / "RVS_9999999999999999999.fits", individual_table(stars, 0, with_ids=False))
    refused(lambda: list(read_gaia(named, BadRows(), COLUMNS, linear_grid)), "its name", "63 bits")


def shifted(stars: Stars, by: float) -> np.ndarray:
    """The spectra [n, P] with their lines moved by so many nm."""
    return np.stack([np.interp(stars.wavelength - by, stars.wavelength, one) for one in stars.flux])


def test_one_star_is_not_in_air_whatever_its_noise_and_its_velocity(caplog):
    stars = Stars(60, edge=0)
    spoilt = stars.flux.copy()
    spoilt[:, np.argmin(np.abs(stars.wavelength - 854.21))] = -0.9
    for flux in (shifted(stars, -0.228), spoilt):  # -80 km/s; a pixel filled with noise
        caplog.clear()
        for one in flux[:5]:
            check_vacuum(stars.wavelength, one[None], "a.fits")
        assert "854.209" in caplog.text or flux is spoilt  # told, not refused
    some = stars.flux.copy()
    some[:20], some[20] = shifted(stars, -0.228)[:20], spoilt[20]
    caplog.clear()
    check_vacuum(stars.wavelength, some, "a.fits")
    noisy = stars.flux + np.random.default_rng(0).normal(0, 1 / 8, (30, *stars.flux.shape))
    for sample in noisy:  # S/N 8, a star and twenty at a time
        check_vacuum(stars.wavelength, sample[:1], "a.fits")
        check_vacuum(stars.wavelength, sample[:20], "a.fits")
        with pytest.raises(SpectangleError, match="its place in air"):
            check_vacuum(stars.wavelength - 0.235, sample, "a.fits")


def test_files_of_a_star_each_are_judged_together(tmp_path):
    stars = Stars(24, edge=0)
    check = VacuumCheck()
    for i in range(24):
        check.add(stars.wavelength - 0.235, stars.flux[i : i + 1], f"{i}.fits")
    refused(check.finish, "0.fits and 23 more", "854.209", "air")
    check.finish()  # each star is judged once
    part = stars.wavelength < 854.25  # the flank of the line is no line
    check_vacuum(stars.wavelength[part], stars.flux[:, part], "a.fits")


def test_another_grid_in_the_next_file(folder):
    other = Stars(4, n_pixels=1201, seed=9)
    write_bulk(folder / "rvs" / "b.csv.gz", other)
    both = Table.read(folder / "labels.ecsv")
    from astropy.table import vstack

    vstack([both, other.table()]).write(folder / "labels.ecsv", overwrite=True)
    refused(lambda: run(folder), "b.csv.gz", "another wavelength grid")


def test_empty_join(folder):
    other = Stars(5, n_pixels=50, seed=99)
    other.table().write(folder / "labels.ecsv", overwrite=True)
    refused(
        lambda: run(folder),
        "None of the 5 labelled stars is among the 12 spectra",
        str(other.ids[0]),
        "RvsMeanSpectrum_0.csv.gz",
        "DR3",
    )
    assert nothing_written(folder)


def test_nothing_left_after_the_cuts(folder, stars):
    write_apogee(folder / "a.fits", stars, FE_H_FLAG=np.ones(12, dtype=np.int32))
    labels = LabelSources(apogee=str(folder / "a.fits"))
    refused(lambda: prepare(GaiaFiles(str(folder / "rvs")), folder / "my.h5", labels), "No star is left")
    write_apogee(folder / "b.fits", stars)
    labels = LabelSources(apogee=str(folder / "b.fits"))
    refused(
        lambda: prepare(GaiaFiles(str(folder / "rvs")), folder / "my.h5", labels, Cuts(min_snr=1e6)),
        "No star is left",
        "min_snr",
    )
    assert nothing_written(folder)


def test_no_magnitudes(folder, stars):
    table = stars.table()
    table.remove_column("phot_g_mean_mag")
    table.write(folder / "labels.ecsv", overwrite=True)
    refused(lambda: run(folder), "no G magnitudes", "cuts.g_min=null")


def test_no_spectra_no_labels_no_overwriting(folder):
    refused(
        lambda: prepare(
            GaiaFiles(str(folder / "nowhere")), folder / "my.h5", LabelSources(table=str(folder / "labels.ecsv"))
        ),
        "names no spectra",
    )
    refused(lambda: prepare(GaiaFiles(str(folder / "rvs")), folder / "my.h5"), "No labels were given")
    run(folder)
    refused(lambda: run(folder), "my.h5 exists already", "overwrite=true")


@pytest.mark.parametrize("suffix", [".xml", ".fits", ".ecsv", ".zip"])
def test_damaged_downloads(tmp_path, stars, suffix):
    path = tmp_path / f"RVS_RAW{suffix}"
    if suffix == ".zip":
        path.write_bytes(b"PK\x03\x04 half a zip")
    else:
        write_table(path, raw_table(stars))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(lambda: list(read_gaia(path, BadRows(), COLUMNS, linear_grid)), path.name)


def test_individual_without_wavelength_or_id(tmp_path, stars):
    table = individual_table(stars, 0, with_ids=False)
    path = write_table(tmp_path / "a.fits", table)
    refused(lambda: list(read_gaia(path, BadRows(), COLUMNS, linear_grid)), "a.fits", "no source_id")
    table = individual_table(stars, 0)
    table.remove_column("wavelength")
    path = write_table(tmp_path / "b.fits", table)
    refused(lambda: list(read_gaia(path, BadRows(), COLUMNS, linear_grid)), "b.fits", "no column 'wavelength'")


def test_arrays_that_do_not_match(tmp_path, stars):
    np.save(tmp_path / "flux.npy", stars.flux[:10])
    stars.table().write(tmp_path / "labels.ecsv")
    plain = Plain(str(tmp_path / "flux.npy"), str(tmp_path / "labels.ecsv"))
    refused(lambda: prepare(plain, tmp_path / "my.h5"), "12 rows", "10 spectra")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    plain = Plain(str(tmp_path / "pickled.npy"), str(tmp_path / "labels.ecsv"))
    refused(lambda: prepare(plain, tmp_path / "my.h5"), "pickled.npy", "without pickled objects")
    for name, values in (
        ("X", stars.flux),
        ("params", np.ones((12, 3))),
        ("ids", stars.ids),
        ("axis_labels", stars.wavelength),
    ):
        np.save(tmp_path / f"{name}.npy", values)
    refused(lambda: prepare(Gandalf(str(tmp_path)), tmp_path / "my.h5"), "params.npy", "(12, 3)", "alpha_fe")
    np.save(tmp_path / "ids.npy", stars.ids.astype(float))
    refused(lambda: prepare(Gandalf(str(tmp_path)), tmp_path / "my.h5"), "ids.npy", "float64")


@pytest.mark.parametrize("options", [{"method": "median"}, {"fill": "zero"}, {"min_good": 4}])
def test_pixels_say_no(options):
    refused(lambda: Pixels(**options), f"pixels.{next(iter(options))}")


def test_lists_may_hold_null(tmp_path, stars):
    stars.flux[0, 5] = np.nan
    rows = [row.replace("NaN", "null") for row in bulk_rows(stars)]
    path = write_bulk(tmp_path / "a.csv.gz", stars, rows)
    [chunk] = read_gaia(path, BadRows(), COLUMNS, linear_grid)
    np.testing.assert_array_equal(chunk.flux, stars.flux)
    assert list_text([np.nan, 1]) == "[NaN,1]"
