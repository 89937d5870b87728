"""Gaia files and catalogues as people have them: stars on grids of their own, fill values, gaps in any column, other
files in the folder.
"""

import warnings

import numpy as np
import pytest
from archive_files import (
    Stars,
    bulk_rows,
    individual_table,
    list_text,
    raw_table,
    write_apogee,
    write_bulk,
    write_table,
)
from astropy.table import MaskedColumn, vstack

from spectangle.archives import Cuts, GaiaFiles, LabelSources, Pixels, prepare
from spectangle.archives.labels.apogee import read_apogee
from spectangle.archives.sample import Funnel, apply_cuts
from spectangle.data.stars import class_codes
from spectangle.errors import SpectangleError
from spectangle.inference.spectra_input import open_spectra
from spectangle.survey.file import Survey
from spectangle.survey.source_ids import NO_ID, as_source_ids

SHIFT = 0.3  # nm, by which the grid of every second star differs
GRID = np.round(847 + 0.03 * np.arange(700), 6)
RESAMPLED = Pixels(method="resample", start=847.0, step=0.03, number=700)
ANY = Cuts(g_min=None, g_max=None, max_masked=0.5)


@pytest.fixture
def stars():
    return Stars(4, edge=0)


def prepared(folder, stars, pixels=None, labels=None, cuts=ANY, **options):
    """What is made of folder/rvs: flux, errors and the rest of a survey in the order of the stars."""
    (labels or stars.table()).write(folder / "labels.ecsv", overwrite=True)
    sources = LabelSources(table=str(folder / "labels.ecsv"), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        prepare(
            GaiaFiles(str(folder / "rvs")),
            folder / "my.h5",
            sources,
            cuts=cuts,
            pixels=pixels,
            report=False,
            overwrite=True,
        )
    with Survey(folder / "my.h5", verify=True) as survey:
        order = np.argsort(survey.source_id)
        return survey.flux()[order], survey.flux_error()[order], {n: survey.column(n)[order] for n in survey.columns}


def read(path, grid=GRID):
    """What spectangle predict sees of a file, by star."""
    found = {}
    for chunk in open_spectra(str(path), grid).chunks:
        for star, flux, error in zip(chunk.source_id.tolist(), chunk.flux, chunk.flux_error, strict=True):
            found[star] = flux, error
    return found


def shifted(folder, stars, form: str):
    """Every second star on another grid than the others, in one file."""
    other = Stars(4, edge=0)
    other.wavelength = stars.wavelength + SHIFT
    grids = [other.wavelength if i % 2 else stars.wavelength for i in range(4)]
    (folder / "rvs").mkdir()
    if form == "individual":
        table = vstack([individual_table(other if i % 2 else stars, i) for i in range(4)])
        return write_table(folder / "rvs" / "a.csv", table)
    if form == "raw":
        table = raw_table(stars, with_wavelength=True)
        table["wavelength"] = np.stack(grids)
        return write_table(folder / "rvs" / "a.fits", table)
    columns = ["source_id", "flux", "flux_error", "wavelength"]
    rows = [
        f'{row},"{list_text(grid.round(2))}"' for row, grid in zip(bulk_rows(stars, columns[:3]), grids, strict=True)
    ]
    return write_bulk(folder / "rvs" / "a.csv", stars, rows, columns)


@pytest.mark.parametrize("form", ["individual", "raw", "raw text"])
def test_each_star_is_read_on_its_own_grid(tmp_path, stars, form):
    path = shifted(tmp_path, stars, form)
    flux, _, _ = prepared(tmp_path, stars, RESAMPLED)
    seen = read(path)
    for i, star in enumerate(stars.ids.tolist()):
        grid = stars.wavelength + (SHIFT if i % 2 else 0)
        expected = np.interp(GRID, grid, stars.flux[i])
        for one in (flux[i], seen[star][0]):
            assert np.nanmean(np.abs(one - expected)) < 0.01  # the noise of one pixel against the mean of three
            assert np.abs(GRID[np.nanargmin(one)] - grid[np.argmin(stars.flux[i])]) < 0.1


@pytest.mark.parametrize("form", ["individual", "raw", "raw text"])
def test_another_grid_in_one_file_is_named(tmp_path, stars, form):
    shifted(tmp_path, stars, form)
    with pytest.raises(SpectangleError, match=f"star {stars.ids[1]} has another wavelength grid than .*resample"):
        prepared(tmp_path, stars)
    one = stars.table()[::2]
    prepared(tmp_path, stars, labels=one)  # stars that nobody asks for may have any
    assert not (tmp_path / "my.h5.parts").exists()


@pytest.mark.parametrize("form", ["a.csv", "a.fits"])
@pytest.mark.parametrize("value", [-99.0, -999.0, -9999.0, 1e20, 1e30, 1e38, 1e300])
def test_fill_values_are_no_flux_and_no_errors(tmp_path, stars, form, value):
    table = raw_table(stars)
    with np.errstate(over="ignore"):
        table["flux"], table["flux_error"] = stars.flux.astype(float), stars.error.astype(float)
    table["flux"][0, 300:306] = table["flux_error"][1, 300:306] = value
    (tmp_path / "rvs").mkdir()
    path = tmp_path / "rvs" / form
    if form == "a.fits":
        table.write(path)
    else:
        rows = [
            f'{row["source_id"]},"{list_text(row["flux"])}","{list_text(row["flux_error"])}"' for row in iter(table)
        ]
        write_bulk(path, stars, rows, ["source_id", "flux", "flux_error"])
    flux, error, columns = prepared(tmp_path, stars)
    wrong = np.zeros((4, 800), dtype=bool)
    wrong[:2, 100:102] = True
    np.testing.assert_array_equal(np.isnan(flux), wrong)
    np.testing.assert_array_equal(np.isnan(error), wrong)
    np.testing.assert_allclose(columns["masked_fraction"], wrong.mean(axis=1), rtol=1e-6)
    seen = read(path, stars.wavelength[:2400].reshape(-1, 3).mean(axis=1))
    np.testing.assert_array_equal([np.isnan(seen[star][0]) for star in stars.ids.tolist()], wrong)
    np.testing.assert_array_equal([np.isnan(seen[star][1]) for star in stars.ids.tolist()], wrong)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_what_an_attribute_lacks_is_no_class(tmp_path, stars, unlabelled):
    """Missing integers were 0, a class of its own; so were the integers of stars without a row."""
    (tmp_path / "rvs").mkdir()
    write_bulk(tmp_path / "rvs" / "a.csv", stars)
    gap = np.arange(4) == 1
    table = stars.table(
        instrument=MaskedColumn([1, 2, 2, 1], mask=gap & (not unlabelled)),
        night=MaskedColumn([2**60, 2**60 + 1, 2**60, 2**60 + 1], mask=gap),
        good=MaskedColumn([True, False, False, True], mask=gap),
        site=MaskedColumn(["A", "B", "B", "A"], mask=gap),
    )
    names = ["instrument", "night", "good", "site"]
    cuts = Cuts(g_min=None, g_max=None, require=[], unlabelled=unlabelled)
    labels = table[~gap] if unlabelled else table
    prepared(tmp_path, stars, labels=labels, cuts=cuts, keep_columns=names)
    with Survey(tmp_path / "my.h5") as survey:
        codes, classes = class_codes(survey, names, np.arange(4))
        gaps = survey.source_id == stars.ids[1]
    assert classes["instrument"] == ["1", "2"] and classes["site"] == ["A", "B"]
    assert classes["night"] == [str(2**60), str(2**60 + 1)] and classes["good"] == ["False", "True"]
    np.testing.assert_array_equal(np.isnan(codes), np.repeat(gaps[:, None], 4, axis=1))


def test_any_text_goes_into_a_survey_whole(tmp_path, stars):
    (tmp_path / "rvs").mkdir()
    write_bulk(tmp_path / "rvs" / "a.csv", stars)
    names = ["Mérida", "α Cen A", "x" * 70 + "A", "x" * 70 + "B"]
    stars.table(site=names).write(tmp_path / "étoiles.ecsv")
    labels = LabelSources(table=str(tmp_path / "étoiles.ecsv"), keep_columns=["site"])
    prepare(GaiaFiles(str(tmp_path / "rvs")), tmp_path / "ü.h5", labels, cuts=ANY)
    with Survey(tmp_path / "ü.h5", verify=True) as survey:
        found = dict(zip(survey.source_id.tolist(), survey.column("site").tolist(), strict=True))
        assert [found[star].decode() for star in stars.ids.tolist()] == names
        assert {text.decode() for text in survey.column("label_origin")} == {"étoiles"}
        assert class_codes(survey, ["site"], np.arange(4))[1] == {"site": sorted(names)}
    assert "étoiles" in (tmp_path / "ü.html").read_text()


@pytest.mark.parametrize("value", ["", "null", "-9999"])
@pytest.mark.parametrize("ending", ["fits", "ecsv"])
def test_text_may_say_that_there_is_no_id(tmp_path, stars, value, ending):
    table = stars.table()
    table["source_id"] = [str(stars.ids[0]), value, value, str(stars.ids[3])]
    table.write(tmp_path / f"labels.{ending}")
    (tmp_path / "rvs").mkdir()
    write_bulk(tmp_path / "rvs" / "a.csv", stars)
    labels = LabelSources(table=str(tmp_path / f"labels.{ending}"))
    made = prepare(GaiaFiles(str(tmp_path / "rvs")), tmp_path / "my.h5", labels, cuts=ANY, report=False)
    assert made is not None and made.tally.after_snr == 2
    assert "2 row(s) have no source_id, the first is row 2" in made.left_out[0]


def test_a_catalogue_with_ids_as_text_skips_those_without(tmp_path, stars):
    ids = np.array([str(stars.ids[0]), "", "0", "-9999"])
    table = read_apogee(write_apogee(tmp_path / "a.fits", stars, GAIAEDR3_SOURCE_ID=ids))
    assert table.source_id.tolist() == [stars.ids[0], NO_ID, NO_ID, NO_ID]
    masked = np.ma.array(["12", "x"], mask=[False, True])
    assert as_source_ids(masked, "a").tolist() == [12, NO_ID]


def test_flags_may_be_floats_with_gaps(tmp_path, stars):
    flags = np.array([0, 2, np.nan, 0], dtype=np.float32)
    path = write_apogee(tmp_path / "a.fits", stars, FE_H_FLAG=flags, ASPCAPFLAG=np.where(flags == 2, np.nan, 0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = read_apogee(path)
    assert table.flags["FE_H_FLAG"].tolist() == [False, True, True, False]  # good is 0, and NaN is not
    assert not table.flags["STAR_BAD"].any()


def test_a_truncated_catalogue_is_one_sentence(tmp_path):
    path = write_apogee(tmp_path / "a.fits", Stars(200, n_pixels=50))
    path.write_bytes(path.read_bytes()[:20000])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SpectangleError, match="truncated"):
            read_apogee(path)


def test_unknown_label_errors_are_cut_by_a_limit_only(tmp_path, stars):
    table = read_apogee(write_apogee(tmp_path / "a.fits", stars, TEFF_ERR=np.array([50, np.nan, 300, 50], "f4")))
    funnel = Funnel()
    assert len(apply_cuts(table, Cuts(), funnel)) == 2
    assert "teff error <= 200; cut: larger, or unknown (1)" in [step["step"] for step in funnel.steps]
    for require in ("all", []):
        kept = apply_cuts(table, Cuts(max_errors={"teff": np.inf}, require=require), Funnel())
        assert len(kept) == 4 and np.isfinite(kept.labels["teff"]).all()


def test_text_among_numbers_is_named_by_its_row(tmp_path, stars):
    (tmp_path / "rvs").mkdir()
    table = stars.table()
    table["teff"] = ["5000", "5100", "hot", "5200"]
    with pytest.raises(SpectangleError, match="column 'teff' holds text .'hot' in row 3.; numbers were expected"):
        prepared(tmp_path, stars, labels=table, columns={"teff": "teff"})


def test_strangers_in_the_folder_are_left_out_or_named(tmp_path, stars):
    (tmp_path / "rvs").mkdir()
    write_bulk(tmp_path / "rvs" / "a.csv", stars)
    stars.table().write(tmp_path / "rvs" / "labels.csv")
    labels = LabelSources(table=str(tmp_path / "rvs" / "labels.csv"))
    made = prepare(GaiaFiles(str(tmp_path / "rvs")), tmp_path / "my.h5", labels, cuts=ANY, report=False)
    assert made is not None and made.left_out == [f"{tmp_path}/rvs/labels.csv: is a table of labels"]
    write_apogee(tmp_path / "rvs" / "allStar.fits", stars)
    with pytest.raises(SpectangleError, match="allStar.fits has no column 'flux'.*take it out of the folder"):
        prepared(tmp_path, stars, labels=stars.table())


def test_a_refused_start_leaves_no_folder_of_parts(tmp_path, stars):
    (tmp_path / "rvs").mkdir()
    (tmp_path / "rvs" / "a.csv").write_text("source_id,flux\n")
    with pytest.raises(SpectangleError, match="header only"):
        prepared(tmp_path, stars)
    assert not list(tmp_path.glob("my.h5*"))
