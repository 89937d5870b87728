"""1-D spectra as people have them: errors and masks under any name, fill values, text among numbers."""

import numpy as np
import pytest

pytest.importorskip("specutils", reason="the reader of 1-D spectra needs specutils: pip install 'spectangle[archives]'")

from astropy.table import Table
from spectra_files import STEP, WAVELENGTH, line, write_image, write_labels

from spectangle.archives import Continuum, Cuts, Pixels, Spectra1D, prepare
from spectangle.archives.spectra.spectrum import Spectrum, normalised
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey

AUTO = Pixels(method="resample", start=None, step=None, number=None, nonpositive_error="mask_pixel")
AXIS = {"CRVAL1": 4700.0, "CDELT1": STEP, "CRPIX1": 1, "CTYPE1": "WAVE", "CUNIT1": "Angstrom"}
FLUX, ERROR = line(WAVELENGTH), np.linspace(0.01, 0.02, 401)
MASK = np.where((np.arange(401) >= 100) & (np.arange(401) < 110), 1, 0).astype(np.int16)
OTHERS = {  # of the error, in other names and forms
    **dict.fromkeys(("ERR", "ERROR", "SIGMA", "NOISE", "UNCERT", "STD"), ERROR),
    **dict.fromkeys(("VAR", "VARIANCE"), ERROR**2),
    "IVAR": ERROR**-2,
}


def made(folder, write, pixels=AUTO):
    """Flux and errors of two stars, of which the second has no pixel masked."""
    (folder / "s").mkdir()
    write(folder / "s" / "a", MASK)
    write(folder / "s" / "b", 0 * MASK)
    write_labels(folder / "labels.csv", ["a", "b"])
    archive = Spectra1D(str(folder / "s"), str(folder / "labels.csv"))
    prepare(archive, folder / "my.h5", cuts=Cuts(g_min=None, g_max=None), pixels=pixels, report=False)
    with Survey(folder / "my.h5") as survey:
        order = np.argsort(survey.column("name"))
        return survey.flux()[order], survey.flux_error()[order]


def check(flux, error):
    np.testing.assert_array_equal(np.isnan(flux), np.stack([MASK == 1, 0 * MASK == 1]))
    np.testing.assert_allclose(flux[1], FLUX, rtol=1e-5)
    np.testing.assert_allclose(error[1], ERROR, rtol=1e-5)
    np.testing.assert_allclose(error[0, MASK == 0], ERROR[MASK == 0], rtol=1e-5)


@pytest.mark.parametrize("mask", ["MASK", "DQ"])
@pytest.mark.parametrize("axis", ["header", "extension"])
@pytest.mark.parametrize("name", OTHERS)
def test_errors_and_masks_of_images(tmp_path, name, axis, mask):
    def write(path, marks):
        more = {name: OTHERS[name], mask: marks}
        if axis == "header":
            write_image(path.with_suffix(".fits"), FLUX, more, **AXIS)
        else:
            write_image(path.with_suffix(".fits"), FLUX, {"WAVELENGTH": WAVELENGTH, **more}, VACUUM=True)

    check(*made(tmp_path, write))


@pytest.mark.parametrize("ending", [".fits", ".csv"])
@pytest.mark.parametrize(
    ("name", "values"),
    [("error", ERROR), ("variance", ERROR**2), ("var", ERROR**2), ("flux_ivar", ERROR**-2), ("IVAR", ERROR**-2)],
)
@pytest.mark.parametrize("kind", [int, bool])
def test_errors_and_masks_of_tables(tmp_path, name, values, ending, kind):
    def write(path, marks):
        table = Table({"wave_vac": WAVELENGTH, "flux": FLUX, name: values, "mask": marks.astype(kind)})
        table.write(path.with_suffix(ending))

    check(*made(tmp_path, write))


def test_a_mask_that_marks_every_pixel_is_a_sentence(tmp_path):
    def write(path, marks):
        Table({"wave_vac": WAVELENGTH, "flux": FLUX, "mask": 1 - marks * 0}).write(path.with_suffix(".csv"))

    with pytest.raises(SpectangleError, match="column 'mask' marks every pixel; 0 was expected where the flux is good"):
        made(tmp_path, write)


@pytest.mark.parametrize("value", [1e20, 1e30, 1e38, 1e300])
@pytest.mark.parametrize("where", ["flux", "error"])
def test_fill_values_are_masked_and_do_not_spread(tmp_path, value, where):
    def write(path, marks):
        flux, error = (
            np.where((marks == 1) & (where == name), value, v) for name, v in (("flux", FLUX), ("error", ERROR))
        )
        Table({"wave_vac": WAVELENGTH, "flux": flux, "error": error}).write(path.with_suffix(".fits"))

    check(*made(tmp_path, write))


@pytest.mark.parametrize("scale", [1e-17, 1.0, 1e14, 1e17])
def test_flux_of_any_unit_is_no_fill_value(scale):
    """Models have 1e16 erg/s/cm2/cm."""
    flux = np.where(MASK == 1, 1e30, scale * FLUX)
    got = normalised(Spectrum(WAVELENGTH / 10, flux[None], None), Continuum("running_mean", width=51), None, "a")
    np.testing.assert_array_equal(np.isnan(got.flux[0]), MASK == 1)
    assert np.nanmax(got.flux) < 2


def test_text_is_named_by_its_row_and_the_sentence_ends_once(tmp_path):
    (tmp_path / "s").mkdir()
    rows = [f"{w},{f}" for w, f in zip(WAVELENGTH, FLUX, strict=True)]
    (tmp_path / "s" / "a.csv").write_text("\n".join(["wave_vac,flux", *rows[:6], "4706,bad", *rows[7:]]) + "\n")
    write_labels(tmp_path / "labels.csv", ["a"])
    archive = Spectra1D(str(tmp_path / "s"), str(tmp_path / "labels.csv"))
    with pytest.raises(SpectangleError) as caught:
        prepare(archive, tmp_path / "my.h5", cuts=Cuts(g_min=None, g_max=None), pixels=AUTO, report=False)
    assert "column 'flux' holds text ('bad' in row 7); numbers were expected. That" in str(caught.value)


def test_a_row_of_the_table_is_counted_in_the_file(tmp_path):
    (tmp_path / "s").mkdir()
    write_image(tmp_path / "s" / "b.fits", FLUX, **AXIS)
    Table({"name": ["a", "b"], "teff": ["5000", "hot"]}).write(tmp_path / "labels.csv")
    archive = Spectra1D(str(tmp_path / "s"), str(tmp_path / "labels.csv"), label_columns={"teff": "teff"})
    with pytest.raises(SpectangleError, match="'hot' in row 2"):
        prepare(archive, tmp_path / "my.h5", report=False)


def test_names_are_of_any_alphabet(tmp_path):
    (tmp_path / "s").mkdir()
    for name in ("α Cen A", "β Pic"):
        write_image(tmp_path / "s" / f"{name}.fits", FLUX, **AXIS)
    write_labels(tmp_path / "labels.csv", ["α Cen A", "β Pic"])
    archive = Spectra1D(str(tmp_path / "s"), str(tmp_path / "labels.csv"))
    prepare(archive, tmp_path / "my.h5", cuts=Cuts(g_min=None, g_max=None), pixels=AUTO)
    with Survey(tmp_path / "my.h5", verify=True) as survey:
        assert sorted(name.decode() for name in survey.column("name")) == ["α Cen A", "β Pic"]
