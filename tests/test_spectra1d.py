"""Any 1-D spectra: each form of a file gives the same line at its vacuum wavelength; what cannot be used is named."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("specutils", reason="the reader of 1-D spectra needs specutils: pip install 'spectangle[archives]'")

from spectra_files import FORMS, MEDIA, STEP, VACUUM, WAVELENGTH, centre_of, line, write_image, write_labels

from spectangle.archives import Continuum, Cuts, Pixels, Spectra1D, SpectrumForm, prepare
from spectangle.archives.labels.names import name_id, name_ids
from spectangle.archives.spectra.air import air_to_vacuum
from spectangle.archives.spectra.continuum import METHODS
from spectangle.archives.spectra.spectrum import Spectrum, normalised
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey

ROOT = Path(__file__).resolve().parents[1]
CUTS = Cuts(g_min=None, g_max=None, max_masked=0.5)
AUTO = Pixels(method="resample", start=None, step=None, number=None, nonpositive_error="mask_pixel")
AIR_AXIS = {"CRVAL1": 4700.0, "CDELT1": STEP, "CRPIX1": 1, "CTYPE1": "AWAV", "CUNIT1": "Angstrom"}


def made(folder: Path, pixels: Pixels = AUTO, **options):
    """Prepare folder/s with folder/labels.csv; return what was made."""
    archive = Spectra1D(**{"spectra": str(folder / "s"), "labels_table": str(folder / "labels.csv")} | options)
    return prepare(archive, folder / "my.h5", cuts=CUTS, pixels=pixels, overwrite=True, report=False)


@pytest.fixture
def world(tmp_path):
    """Three stars with FITS images in air, labelled."""
    (tmp_path / "s").mkdir()
    for i, name in enumerate(("HD 1", "HD 2", "HD 3")):
        write_image(
            tmp_path / "s" / f"{name}.fits", line(WAVELENGTH, depth=0.2 + 0.2 * i), **AIR_AXIS, OBJECT=f"star {i}"
        )
    write_labels(tmp_path / "labels.csv", ["hd1", "HD2", "HD  3"])
    return tmp_path


@pytest.mark.parametrize("name", FORMS)
def test_each_form_has_its_line_in_vacuum(name, tmp_path):
    (tmp_path / "s").mkdir()
    FORMS[name](tmp_path / "s" / name)
    write_labels(tmp_path / "labels.csv", [name.split(".")[0]])
    made(tmp_path, form=SpectrumForm(medium=MEDIA.get(name, "header")))
    with Survey(tmp_path / "my.h5", verify=True) as survey:
        assert len(survey) == 1 and survey.n_pixels == (400 if name == "sdss.fits" else 401)  # one is marked as bad
        assert abs(centre_of(survey.wavelength, survey.flux()[0]) - VACUUM / 10) < 0.1 * STEP / 10  # a tenth of a pixel
        assert np.nanmin(survey.flux()) == pytest.approx(0.5, abs=0.01)
        if survey.has_flux_error:
            np.testing.assert_allclose(survey.flux_error(), 0.01, rtol=1e-5)
        assert survey.has_flux_error == (
            name in ("extension.fits", "table.fits", "log_table.fits", "sdss.fits", "sdss_log.fits")
        )
        assert np.isfinite(survey.flux()).all()


def test_names_and_ids_are_in_the_columns_that_are_named(world):
    numbers = np.arange(3) + 2**60
    write_labels(world / "labels.csv", ["a", "b", "c"], target=["hd1", "HD2", "HD  3"], number=numbers)
    made(world, match_column="target", id_column="number")
    with Survey(world / "my.h5") as survey:
        np.testing.assert_array_equal(np.sort(survey.source_id), numbers)


def test_air_is_converted_by_the_published_formula():
    known = {
        4861.333: 4862.691,
        5889.951: 5891.583,
        6562.80: 6564.613,
        8542.09: 8544.437,
    }  # Angstrom; Morton 2000 as NIST and SDSS use it
    np.testing.assert_allclose(air_to_vacuum(np.array(list(known)) / 10, "here") * 10, list(known.values()), atol=2e-3)
    with pytest.raises(SpectangleError, match="below 200 nm they are given in vacuum"):
        air_to_vacuum(np.array([150.0, 160.0]), "here")


def test_files_of_different_grids_meet_on_what_is_common(tmp_path):
    (tmp_path / "s").mkdir()
    names = [name for name in FORMS if name not in MEDIA]
    for name in names:
        FORMS[name](tmp_path / "s" / name)
    write_labels(tmp_path / "labels.csv", [name.split(".")[0] for name in names])
    made(tmp_path)
    with Survey(tmp_path / "my.h5") as survey:
        assert len(survey) == len(names) and not survey.has_flux_error  # errors of all stars or of none
        np.testing.assert_allclose(np.diff(survey.wavelength), 0.1, atol=1e-3)
        assert (
            470.1 < survey.wavelength[0] < 470.4 and 507 < survey.wavelength[-1] < 508
        )  # standard_log.fits ends first
        assert all(abs(centre_of(survey.wavelength, flux) - VACUUM / 10) < 0.01 for flux in survey.flux())


def test_a_grid_can_be_stated(world):
    made(world, pixels=Pixels(method="resample", start=480.0, step=0.2, number=60))
    with Survey(world / "my.h5") as survey:
        np.testing.assert_allclose(survey.wavelength, 480 + 0.2 * np.arange(60))
    made(world, pixels=AUTO, window=[480.0, 490.0])
    with Survey(world / "my.h5") as survey:
        assert survey.n_pixels == 100 and survey.wavelength[0] >= 480


def test_names_become_stable_ids_and_stay_as_a_column(world):
    made(world)
    with Survey(world / "my.h5") as survey:
        names = [name.decode() for name in survey.column("name")]
        assert names == ["HD 1", "HD 2", "HD 3"]
        assert survey.source_id.tolist() == [name_id(name) for name in names]
        np.testing.assert_allclose(
            1 - survey.flux().min(axis=1), [0.2, 0.4, 0.6], atol=0.01
        )  # each star kept its spectrum
        np.testing.assert_allclose(survey.label("teff"), [4100, 5500, 6900])
        assert survey.attributes["origin"] == "s x labels"
    assert name_id("HD 4628") == name_id("hd4628") == 1487683433827326310 and name_id("0012") == name_id("12")


def test_ids_of_the_table_are_kept(world):
    ids = [4295806720, 34361129088, 38655544960]
    write_labels(
        world / "labels2.csv", ["HD1", "HD2", "HD3"], source_id=ids, period=[1.5, 2.5, 3.5], iron=[0.1, 0.2, 0.3]
    )
    made(world, labels_table=str(world / "labels2.csv"), keep_columns=["period"], label_columns={"fe_h": "iron"})
    with Survey(world / "my.h5") as survey:
        assert survey.source_id.tolist() == ids and survey.column("period").tolist() == [1.5, 2.5, 3.5]
        assert survey.labels == ("fe_h",) and survey.unit("fe_h") == "dex"


@pytest.mark.parametrize(
    ("options", "column"),
    [({"name_keyword": "object"}, ["star 0", "star 1", "star 2"]), ({"name_pattern": r"HD (\d)"}, [1, 2, 3])],
)
def test_the_header_or_a_pattern_may_name_the_star(options, column, world):
    write_labels(world / "labels.csv", column)
    assert made(world, **options).tally.after_snr == 3


def test_spoilt_pixels_are_masked_and_do_not_spread(world):
    flux = line(WAVELENGTH, 4900.0)
    flux[[50, 100, 150]] = [np.nan, 0, -3]
    flux[200] = np.inf
    write_image(world / "s" / "HD 2.fits", flux, **AIR_AXIS)
    made(world, continuum=Continuum("running_mean", 51))
    with Survey(world / "my.h5") as survey:
        masked = np.flatnonzero(np.isnan(survey.flux()[1]))
        assert masked.tolist() == [50, 100, 150, 200] and np.isfinite(survey.flux()[[0, 2]]).all()
        near = survey.flux()[1][[49, 51, 99, 101, 149, 151]]
        np.testing.assert_allclose(near, 1, atol=0.01)
    made(
        world,
        pixels=Pixels(method="resample", start=471.0, step=0.25, number=150),
        continuum=Continuum("running_median", 51),
    )
    with Survey(world / "my.h5") as survey:
        assert np.isnan(survey.flux()[1]).sum() <= 8 and np.nanmax(np.abs(survey.flux()[1] - 1)) < 0.55


@pytest.mark.parametrize("method", METHODS)
def test_a_continuum_is_taken_away_and_its_scale_with_it(method):
    level = 3e-14 * (2 + 0.3 * np.sin(np.linspace(0, 3, 401)))
    flux = level * line(WAVELENGTH, depth=0.6)
    flux[10] = np.nan
    made = normalised(
        Spectrum(WAVELENGTH / 10, flux[None], 0.01 * level[None]),
        Continuum(method, width=101, degree=5, knots=3),
        None,
        "here",
    )
    assert made.error is not None and np.isnan(made.flux[0, 10]) and np.isfinite(np.delete(made.flux[0], 10)).all()
    if method == "none":
        np.testing.assert_allclose(made.flux, flux[None], rtol=1e-6)
        return
    away = np.abs(WAVELENGTH - 4861) > 60
    np.testing.assert_allclose(
        made.flux[0, away & np.isfinite(flux)], 1, atol=0.02 if method != "running_mean" else 0.05
    )
    np.testing.assert_allclose(made.error[0, away & np.isfinite(flux)], 0.01, rtol=0.06)
    assert np.nanmin(made.flux[0]) == pytest.approx(0.4, abs=0.06)


def test_every_file_is_used_or_named(world):
    folder = world / "s"
    (folder / "README").write_text("read me")
    (folder / "more").mkdir()
    write_image(folder / "more" / "HD 9.fits", line(WAVELENGTH), **AIR_AXIS)
    (folder / "HD 3.fits").write_bytes((folder / "HD 3.fits").read_bytes()[:3000])
    write_labels(folder / "labels.csv", ["HD1", "HD2", "HD3", "HD4"], teff_error=[1, 1, 1, 1])
    archive = Spectra1D(str(folder), str(folder / "labels.csv"))
    result = prepare(
        archive,
        world / "my.h5",
        cuts=Cuts(g_min=None, g_max=None, label_ranges={"logg": [1.5, 5]}),
        pixels=AUTO,
        max_bad_rows=1,
    )
    assert result is not None
    said = "\n".join(result.left_out + result.bad.sentences)
    for sentence in (
        "README: has the ending of no spectrum",
        "labels.csv: is the table of labels",
        "HD 9.fits: star HD 9 has no row in",
        "labels.csv: 1 row(s) have no file, the first is HD4",
        "HD 1.fits: star HD 1 was removed by the cuts on labels",
        "HD 3.fits: star HD 3 was removed by the cuts on spectra, or skipped as a bad row",
        "HD 3.fits cannot be read as FITS (",
    ):
        assert sentence in said
    assert "HD 9.fits: star HD 9 has no row" in (world / "my.html").read_text() and result.tally.after_snr == 1


def test_values_that_are_taken_for_missing_are_said_as_of_other_archives(world, capsys):
    fe_h = [0.1, -9.99, -0.2, 99.9]
    write_labels(world / "labels.csv", ["no file", "hd1", "HD2", "HD  3"], fe_h=fe_h, vsini=[1.0, 2, 3, 4])
    made(world, label_columns={"fe_h": "fe_h", "vsini": "vsini"})
    said = " ".join(capsys.readouterr().out.split())
    assert "labels.csv: 2 value(s) of fe_h are taken for missing; in row 2 that of star HD 1 is -9.99, and lies" in said
    write_labels(world / "labels.csv", ["hd1", "HD2", "HD  3"], fe_h=[7.5, 7.4, 7.6])
    with pytest.raises(SpectangleError, match=r"star HD 1: fe_h is 7.5, and all 3 .*: labels.units='{fe_h: UNIT}'"):
        made(world, label_columns={"fe_h": "fe_h"})


def test_a_file_without_a_row_is_kept_where_labels_may_lack(world):
    """Its id is that of its name, as that of a star whose row has none."""
    write_image(world / "s" / "HD 9.fits", line(WAVELENGTH), **AIR_AXIS)
    archive = Spectra1D(str(world / "s"), str(world / "labels.csv"))
    cuts = Cuts(g_min=None, g_max=None, unlabelled=True)
    result = prepare(archive, world / "my.h5", cuts=cuts, pixels=AUTO)
    assert result is not None and "HD 9" not in "\n".join(result.left_out)
    assert "paper" not in (world / "my.html").read_text().lower()
    with Survey(world / "my.h5") as survey:
        (row,) = np.flatnonzero(survey.source_id == name_id("hd9"))
        teff = survey.label("teff")
        assert survey.column("name")[row].decode() == "HD 9"
        assert np.isnan(teff[row]) and np.isfinite(np.delete(teff, row)).all() and len(teff) > 2


def change(world: Path, name: str, **header) -> None:
    write_image(world / "s" / name, line(WAVELENGTH), **header)


def write(world: Path, name: str, text: str) -> None:
    (world / "s" / "HD 1.fits").unlink()
    (world / "s" / name).write_text(text)


NO_CRPIX = {key: value for key, value in AIR_AXIS.items() if key != "CRPIX1"}
BAD = {  # {case: (how it is spoilt, options, what is said)}
    "no medium": (
        lambda w: change(w, "HD 1.fits", **AIR_AXIS | {"CTYPE1": "LINEAR"}),
        {},
        "1.fits does not say whether .* state it: archive.form",
    ),
    "no unit": (
        lambda w: change(w, "HD 1.fits", **AIR_AXIS | {"CUNIT1": "furlong"}),
        {},
        "'furlong' is no unit of wavelength",
    ),
    "no axis": (lambda w: change(w, "HD 1.fits"), {}, "HD 1.fits has no wavelengths: no CRVAL1"),
    "no CRPIX1": (lambda w: change(w, "HD 1.fits", **NO_CRPIX), {}, "has no CRPIX1; .*reference_pixel=1"),
    "wrong unit": (
        lambda w: change(w, "HD 1.fits", **AIR_AXIS | {"CUNIT1": "micron"}),
        {},
        "not within 100 to 30000 nm",
    ),
    "two rows": (
        lambda w: write_image(w / "s" / "HD 1.fits", np.ones((2, 9)), **AIR_AXIS),
        {},
        "image of shape .2, 9.",
    ),
    "text": (
        lambda w: write(w, "HD 1.txt", "no numbers\n in here\n"),
        {},
        "HD 1.txt: column 'col1' holds text|HD 1.txt: no column is known",
    ),
    "no column": (
        lambda w: write(w, "HD 1.csv", "a,b\n1,2\n3,4\n"),
        {},
        "HD 1.csv: no column is known as wavelength; it has: a, b",
    ),
    "wrong join": (
        lambda w: write_labels(w / "labels.csv", ["HD7", "HD8"]),
        {},
        "No file belongs .* such as 'HD7', the files such as 'HD 1'",
    ),
    "two files": (
        lambda w: write_image(w / "s" / "hd1.fits", line(WAVELENGTH), **AIR_AXIS),
        {},
        "hd1.fits are both of star 'hd1'",
    ),
    "two rows of a star": (
        lambda w: write_labels(w / "labels.csv", ["HD1", "hd 1"]),
        {},
        "have the same id; keep one row per star",
    ),
    "no names": (lambda w: (w / "labels.csv").write_text("x,teff\n1,2\n"), {}, "has no column of names"),
    "no such star": (lambda w: None, {"exclude": ["HD 77"]}, "archive.exclude names 'HD 77'"),
    "no pattern": (lambda w: None, {"name_pattern": "("}, "is no regular expression"),
    "no labels": (lambda w: None, {"labels_table": None}, "labels.table=stars.csv"),
    "no window": (lambda w: None, {"window": [900, 901]}, "0 pixels lie in archive.window"),
    "no files": (lambda w: None, {"spectra": "nowhere"}, "spectra=nowhere names no spectra"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_sentence(case, world):
    spoil, options, sentence = BAD[case]
    spoil(world)
    with pytest.raises(SpectangleError, match=sentence) as error:
        made(world, **options)
    assert str(error.value).endswith((".", "=..."))
    assert not (world / "my.h5").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Continuum("mean"), "continuum.method=mean is not known; it can be none"),
        (lambda: Continuum("running_mean", 10), "continuum.width=10 must be an odd number"),
        (lambda: SpectrumForm(medium="water"), "medium=water is not known; it can be header, air, vacuum"),
        (lambda: SpectrumForm(columns={"waves": "w"}), "has the key 'waves'; it can have wavelength, flux, flux_error"),
        (lambda: Cuts(label_ranges={"teff": [7000, 4000]}), "cuts.label_ranges.teff=.* must be two increasing numbers"),
    ],
)
def test_bad_keys_are_a_sentence(make, sentence):
    with pytest.raises(SpectangleError, match=sentence):
        make()


def test_a_key_overrules_the_header_and_names_columns(world):
    made(world, form=SpectrumForm(medium="vacuum"))
    with Survey(world / "my.h5") as survey:
        np.testing.assert_allclose(survey.wavelength, WAVELENGTH / 10)
    write(world, "HD 1.csv", "a,b\n" + "\n".join(f"{w},{f}" for w, f in zip(WAVELENGTH, line(WAVELENGTH), strict=True)))
    made(world, form=SpectrumForm(medium="air", columns={"wavelength": "a", "flux": "b"}))
    with Survey(world / "my.h5") as survey:
        assert len(survey) == 3 and np.all(
            np.abs([centre_of(survey.wavelength, flux) - VACUUM / 10 for flux in survey.flux()]) < 0.01
        )


def test_without_specutils_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "specutils", None)
    with pytest.raises(
        SpectangleError,
        match="air wavelengths need specutils, which is not installed: pip install 'spectangle.archives.'",
    ):
        air_to_vacuum(np.array([500.0, 501.0]), "here")


def test_names_with_one_id_are_refused(monkeypatch):
    monkeypatch.setattr("spectangle.archives.labels.names.name_id", lambda name: 7)
    with pytest.raises(SpectangleError, match="star 'A' of row 1 and star 'B' of row 2 have the same id; rename one"):
        name_ids(["A", "B"], "here")
    with pytest.raises(SpectangleError, match="row 1: the star has no name"):
        name_ids([" "], "here")


def test_no_common_range_names_two_files(world):
    change(world, "HD 2.fits", **AIR_AXIS | {"CRVAL1": 8700.0})
    with pytest.raises(SpectangleError, match=r"HD 2\.fits begins at .* and .*HD [13]\.fits ends at"):
        made(world)


def test_a_list_of_files(world):
    (world / "list.txt").write_text("# mine\ns/HD 1.fits\ns/HD 3.fits\n")
    assert made(world, spectra=str(world / "list.txt")).tally.after_snr == 2
    assert made(world, spectra=[str(world / "s" / "HD 2.fits")]).tally.after_snr == 1
    assert made(world, spectra=str(world / "s" / "HD [12].fits")).tally.after_snr == 2
    (world / "list.txt").write_text("s/HD 1.fits\ns/HD 4.fits\n")
    with pytest.raises(SpectangleError, match="names the file .*HD 4.fits, which is not there"):
        made(world, spectra=str(world / "list.txt"))


def test_by_command(tmp_path):
    (tmp_path / "s").mkdir()
    random = np.random.default_rng(0)
    for i in range(12):
        flux = line(WAVELENGTH, depth=0.1 + 0.05 * i) * random.uniform(1e-14, 2e-14)
        write_image(tmp_path / "s" / f"star_{i:02d}.fits", flux, **AIR_AXIS)
    write_labels(tmp_path / "labels.csv", [f"star_{i:02d}" for i in range(12)])
    arguments = [
        "archive=spectra1d",
        "spectra=s",
        "labels.table=labels.csv",
        "survey=my.h5",
        "workers=2",
        "archive.continuum.method=polynomial",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "spectangle", "prepare", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("my*")) == ["my.h5", "my.html"]
    with Survey(tmp_path / "my.h5", verify=True) as survey:
        assert len(survey) == 12 and "spectangle prepare archive=spectra1d" in survey.attributes["created_by"]
        np.testing.assert_allclose(np.nanmin(survey.flux(), axis=1), 0.9 - 0.05 * np.arange(12), atol=0.02)
