"""Tables of labels as people have them: which columns are taken, in which unit, and which values stand for missing
ones.
"""

import re
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from archive_files import Stars, write_apogee, write_bulk
from astropy.table import MaskedColumn, Table

from spectangle.archives import Cuts, GaiaFiles, LabelSources, Pixels, Plain, prepare
from spectangle.archives.labels.label_columns import label_name
from spectangle.archives.tables.missing import is_missing
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey

TAKEN = Cuts(g_min=None, g_max=None, max_errors={}, max_masked=0.5)


@pytest.fixture(scope="module")
def stars():
    return Stars(12, n_pixels=301, edge=0)


def prepared(folder: Path, stars: Stars, table: Table, ending: str = "ecsv", cuts: Cuts = TAKEN, **options):
    """What archive=plain makes of a table of labels."""
    np.save(folder / "flux.npy", stars.flux)
    table.write(folder / f"labels.{ending}", overwrite=True)
    plain = Plain(str(folder / "flux.npy"), str(folder / f"labels.{ending}"), **options)
    made = prepare(
        plain,
        folder / "my.h5",
        cuts=cuts,
        pixels=Pixels(method="none"),
        overwrite=True,
        report=False,
    )
    assert made is not None
    return made


def test_every_label_is_taken_and_what_is_left_is_said(tmp_path, stars, capsys):
    n = len(stars.ids)
    table = Table(
        {
            "source_id": stars.ids,
            "Teff": stars.labels["teff"],
            "logg": stars.labels["logg"],
            "[Fe/H]": stars.labels["m_h"],
        }
    )
    table["e_Teff"], table["vsini"], table["name"], table["ra"] = (
        np.full(n, 50.0),
        np.linspace(1, 9, n),
        ["HD 1"] * n,
        np.linspace(0, 9, n),
    )
    table["phot_g_mean_mag"], table["age"] = stars.g, MaskedColumn(np.ones(n), mask=np.arange(n) < 11)
    table["spectra"] = np.ones((n, 3))
    prepared(tmp_path, stars, table)
    with Survey(tmp_path / "my.h5") as survey:
        assert survey.labels == ("teff", "logg", "fe_h", "vsini")
        np.testing.assert_allclose(survey.label("fe_h"), stars.labels["m_h"], rtol=1e-6)
        np.testing.assert_allclose(survey.label_error("teff"), 50)
    said = " ".join(capsys.readouterr().out.split())
    assert "the labels are teff (column Teff), logg, fe_h (column [Fe/H]), vsini." in said
    assert "Their errors: teff (column e_Teff)." in said and "lambdas=first_pair experiment=small_survey" in said
    for left in (
        "source_id (the id)",
        "name (text)",
        "ra (a position)",
        "spectra (arrays)",
    ):
        assert left in said
    assert (
        "age (missing in 92% of the rows)" in said
        and "phot_g_mean_mag (the magnitude)" in said
        and "archive.columns=" in said
    )


def test_a_table_beside_a_catalogue_gives_the_labels_that_both_have(tmp_path, stars, capsys):
    (tmp_path / "rvs").mkdir()
    write_bulk(tmp_path / "rvs" / "a.csv.gz", stars)
    write_apogee(tmp_path / "a.fits", stars)
    stars.table(vsini=np.ones(12)).write(tmp_path / "mine.ecsv")
    labels = LabelSources(table=str(tmp_path / "mine.ecsv"), apogee=str(tmp_path / "a.fits"))
    prepare(GaiaFiles(str(tmp_path / "rvs")), tmp_path / "my.h5", labels, report=False)
    with Survey(tmp_path / "my.h5") as survey:
        assert set(survey.labels) == {"teff", "logg", "m_h", "alpha_fe"}
    assert "left out vsini" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("[Fe/H]", "fe_h"),
        ("Fe/H", "fe_h"),
        ("log g", "logg"),
        ("T_EFF", "teff"),
        ("[α/Fe]", "alpha_fe"),
        ("12C", "_12c"),
    ],
)
def test_columns_of_any_spelling_have_a_name(column, name):
    assert label_name(column) == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("teff", -999),
        ("teff", 0),
        ("teff", 9.96921e36),
        ("logg", 99.99),
        ("fe_h", -9.99),
        ("fe_h", 999),
        ("vsini", -99.9),
    ],
)
def test_a_sentinel_is_no_value_and_is_said(tmp_path, stars, name, value, capsys):
    table = Table(
        {
            "source_id": stars.ids,
            "teff": stars.labels["teff"],
            "logg": stars.labels["logg"],
            "fe_h": stars.labels["m_h"],
        }
    )
    table["vsini"] = np.linspace(2, 20, len(table))
    table[name][4] = value
    columns = {column: column for column in table.colnames[1:]}
    made = prepared(tmp_path, stars, table, columns=columns)
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(f"1 value.s. of {name} are taken for missing; in row 5 that of star {stars.ids[4]} is ", said)
    assert made.tally.after_snr == 11
    with Survey(tmp_path / "my.h5") as survey:
        assert stars.ids[4] not in survey.source_id and np.isfinite(survey.label(name)).all()


def test_a_label_in_a_unit_that_nobody_said_is_refused(tmp_path, stars):
    table = stars.table()
    table["teff"] /= 1000
    table["teff"][0] = -9999  # is missing in any unit
    first = table["teff"][1]
    with pytest.raises(SpectangleError) as error:
        prepared(tmp_path, stars, table, ending="csv")
    said = (
        f"labels.csv, row 2, star {stars.ids[1]}: teff is {first:g}, and all 11 values of teff would be taken for miss"
    )
    assert said in str(error.value) and "archive.units='{teff: kK}'" in str(error.value)
    assert not (tmp_path / "my.h5").exists()
    prepared(tmp_path, stars, table, ending="csv", units={"teff": "kK"})
    with Survey(tmp_path / "my.h5") as survey:
        assert survey.unit("teff") == "kK"
        np.testing.assert_allclose(survey.label("teff"), table["teff"][1:], rtol=1e-6)


def test_a_label_that_only_has_fill_values_is_a_missing_one(tmp_path, stars, capsys):
    labels = {"teff": stars.labels["teff"], "logg": np.full(12, -9999.0), "a_h": np.full(12, 8.5)}
    cuts = Cuts(g_min=None, g_max=None, max_errors={}, require=[])
    prepared(tmp_path, stars, Table({"source_id": stars.ids} | labels), cuts=cuts)
    with Survey(tmp_path / "my.h5") as survey:
        assert survey.labels == ("teff", "logg") and np.isnan(survey.label("logg")).all()
    assert "a_h (no value from -8 to 3)" in " ".join(capsys.readouterr().out.split())


def test_a_value_among_others_is_no_sentinel():
    assert not is_missing(np.array([70.0, 99, 120, 99, 80]), "vsini").any()
    assert not is_missing(np.array([5040.0, 999, 300, 12, 2000]), "period").any()
    assert is_missing(np.append(np.random.default_rng(0).normal(0, 30, 2999), -999), "drift").sum() == 1


@pytest.mark.parametrize(
    ("name", "factor", "unit", "shown"),
    [("teff", 1e-3, "kK", 1), ("logg", 1, "dex(m/s2)", 2), ("logg", 1, "", 0), ("teff", 1, "K", 1)],
)
def test_columns_in_other_units_are_converted(tmp_path, stars, name, factor, unit, shown):
    table = stars.table()
    table[name] = table[name] * factor
    table[name].unit = u.Unit(unit) if unit else None
    table[f"e_{name}"] = np.full(len(table), 0.1)
    prepared(tmp_path, stars, table)
    with Survey(tmp_path / "my.h5") as survey:
        shift = 2 if unit == "dex(m/s2)" else 0
        np.testing.assert_allclose(survey.label(name), stars.labels[name] + shift, rtol=1e-5)
        assert survey.unit(name) == ("K" if name == "teff" else "dex")
        np.testing.assert_allclose(survey.label_error(name), 0.1 / factor, rtol=1e-5)


def test_a_unit_of_something_else_is_a_sentence(tmp_path, stars):
    table = stars.table()
    table["teff"].unit = "km/s"
    with pytest.raises(
        SpectangleError,
        match=r"column teff has the unit 'km / s', and K was expected; convert the column, or .* units=",
    ):
        prepared(tmp_path, stars, table)
    prepared(tmp_path, stars, table, units={"teff": "km / s"})
    with Survey(tmp_path / "my.h5") as survey:
        assert survey.unit("teff") == "km / s"


def test_errors_that_are_sentinels_are_no_errors(tmp_path, stars):
    prepared(tmp_path, stars, stars.table(teff_error=np.where(np.arange(12) == 3, -999.0, 40.0)))
    with Survey(tmp_path / "my.h5") as survey:
        assert np.isnan(survey.label_error("teff")).sum() == 1 and np.nanmin(survey.label_error("teff")) == 40


def test_arrays_are_no_labels(tmp_path, stars):
    table = stars.table(both=np.ones((12, 2)))
    with pytest.raises(
        SpectangleError, match="column 'both' holds arrays of 2 values; one number for each star was expected"
    ):
        prepared(tmp_path, stars, table, columns={"teff": "both"})


@pytest.mark.parametrize("text", [False, True])
def test_rows_without_an_id_are_dropped_and_said(tmp_path, stars, capsys, text):
    table = stars.table()
    ids = stars.ids.astype(str) if text else stars.ids
    table["source_id"] = MaskedColumn(ids, mask=np.isin(np.arange(12), [2, 7]))
    made = prepared(tmp_path, stars, table)
    assert made.tally.after_snr == 10 and made.bad.count == 0
    with Survey(tmp_path / "my.h5") as survey:
        np.testing.assert_array_equal(survey.source_id, np.delete(stars.ids, [2, 7]))
        np.testing.assert_array_equal(survey.flux(), np.delete(stars.flux, [2, 7], axis=0))
    assert "2 row(s) have no source_id, the first is row 3" in " ".join(capsys.readouterr().out.split())


def test_a_star_may_have_the_number_zero(tmp_path, stars):
    table = stars.table()
    table["source_id"] = np.arange(12)
    assert prepared(tmp_path, stars, table).tally.after_snr == 12


def test_labels_that_cannot_be_names_are_refused_before_anything_is_written(tmp_path, stars):
    with pytest.raises(
        SpectangleError, match=r"archive.columns: the label 'Fe/H' cannot be a name in a survey .*; call it fe_h"
    ):
        prepared(tmp_path, stars, stars.table(), columns={"Fe/H": "m_h"})
    assert not (tmp_path / "my.h5").exists()


def test_an_instrument_of_the_table_goes_into_the_survey(tmp_path, stars):
    table = Table({"source_id": stars.ids, "teff": stars.labels["teff"], "logg": stars.labels["logg"]})
    table["instrument"] = MaskedColumn(["A", "B"] * 6, mask=[True] + [False] * 11)
    prepared(tmp_path, stars, table, keep_columns=["instrument"])
    with Survey(tmp_path / "my.h5") as survey:
        words = dict(zip(survey.source_id.tolist(), survey.column("instrument").tolist(), strict=True))
        assert [words[star] for star in stars.ids.tolist()] == [b"", b"B", *[b"A", b"B"] * 5]
        assert survey.labels == ("teff", "logg")
    with pytest.raises(SpectangleError, match="no column 'telescope'"):
        prepared(tmp_path, stars, table, keep_columns=["telescope"])
