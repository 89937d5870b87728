"""MILES: every form of the library gives the same survey; the real one where it lies beside the project."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "specutils", reason="MILES' wavelengths are in air, and specutils converts them: pip install 'spectangle[archives]'"
)

import hydra
from hydra.utils import instantiate
from spectra_files import write_image

from spectangle.archives import Miles, prepare
from spectangle.archives.miles.miles_table import parse_table
from spectangle.configs.targets import targets
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(__file__).parents[2] / "shared/data/miles"
INSIDE = "mangadap/data/spectral_templates/miles"
TABLE = """Name                  MILES   CaT   SpT            Teff   log g   [Fe/H]  Refs   Libraries
                      s????   
 - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - --
BD+012916              0505   677   KIIvw           4238   0.34    -1.49   221         I      
G156-031               0838   705   M7e             2748   5.09      --    33    L            
HD044691A              022.         A3m             6950   3.95     0.35   333                
HD 020902         Cl   0898         F5 Ib           6527   0.26    -0.05   1                  
NGC 7789 329(491) Cl   0972                         4527   2.14    -0.13   1                  
NGC 7789 342(502) Cl   0974                        10023   2.25    -0.13   1                  
"""
NUMBERS = ["0505", "0838", "0221", "0898", "0974"]  # 0972 has no file


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The FITS files of five stars in a folder as in the wheel, and the wheel."""
    folder = tmp_path_factory.mktemp("library") / "unzipped"
    place = folder / INSIDE
    (place / "omit").mkdir(parents=True)
    random = np.random.default_rng(3)
    for number in NUMBERS:
        flux = random.normal(1, 0.05, 4300)
        write_image(place / f"MILES_res2.50_star_m{number}V.fits", flux, CRPIX1=1, CRVAL1=3540.5, CDELT1=0.9)
    shutil.copy(place / "MILES_res2.50_star_m0505V.fits", place / "omit" / "MILES_res2.50_star_m0970V.fits")
    (place / "README").write_text("read me")
    (place / "paramsMILES_v9.1.txt").write_text(TABLE)
    other = folder / "mangadap/data/spectral_templates/miles_thin"
    other.mkdir()
    shutil.copy(place / "MILES_res2.50_star_m0505V.fits", other)
    with zipfile.ZipFile(folder.parent / "library.whl", "w") as wheel:
        for path in sorted(folder.rglob("*")):
            wheel.write(path, path.relative_to(folder))
    return folder


def made(tmp_path: Path, *overrides: str):
    """Prepare as the command would."""
    with hydra.initialize_config_dir(str(ROOT / "conf")):
        config = hydra.compose("prepare", ["archive=miles", *overrides])
    parts = {
        key: instantiate(config[key], _convert_="all", _execution_whitelist_=targets())
        for key in ("archive", "cuts", "pixels")
    }
    return prepare(**parts, survey=tmp_path / "miles.h5", overwrite=True, report=False)


def test_the_table_is_read_by_its_columns():
    table = parse_table(TABLE, "here")
    labels = table.labels("MILES")
    assert table.names == ["BD+012916", "G156-031", "HD044691A", "HD 020902", "NGC 7789 329(491)", "NGC 7789 342(502)"]
    assert table.miles_id == ["0505", "0838", "0221", "0898", "0972", "0974"]
    np.testing.assert_allclose(labels.labels["teff"], [4238, 2748, 6950, 6527, 4527, 10023])
    np.testing.assert_allclose(labels.labels["fe_h"], [-1.49, np.nan, 0.35, -0.05, -0.13, -0.13], rtol=1e-6)
    assert labels.columns["sptype"].tolist() == ["KIIvw", "M7e", "A3m", "F5 Ib", "", ""]
    assert labels.columns["refs"].tolist() == ["221", "33", "333", "1", "1", "1"] and labels.units["fe_h"] == "dex"
    with pytest.raises(SpectangleError, match="line 1: 'teff,logg' is no row of MILES' parameter table"):
        parse_table("teff,logg\n", "here")


def test_every_form_gives_the_same(library, tmp_path):
    folders = [library / INSIDE, library, library.parent / "library.whl"]
    surveys = []
    for folder in folders:
        result = made(tmp_path, f"folder='{folder}'")
        said = "\n".join(result.left_out)
        for sentence in (
            "README: is no FITS file with a MILES number in its name",
            "m0970V.fits: lies in a folder of its own",
            "paramsMILES_v9.1.txt: NGC 7789 329(491) (spectrum 0972) has no file",
            "m0838V.fits: star G156-031 (spectrum 0838) was removed by the cuts on labels",
        ):
            assert sentence in said, said
        with Survey(tmp_path / "miles.h5", verify=True) as survey:
            order = np.argsort(survey.source_id)
            surveys.append(
                (
                    survey.source_id[order],
                    survey.flux()[order],
                    survey.label("fe_h")[order],
                    survey.column("name")[order],
                )
            )
            assert survey.n_pixels == 1263 and "cite Sanchez-Blazquez" in survey.attributes["origin"]
    assert set(surveys[0][3].tolist()) == {b"BD+012916", b"HD044691A", b"HD 020902"}
    for other in surveys[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(surveys[0], other, strict=True))


def test_cuts_and_stars_are_keys(library, tmp_path, capsys):
    result = made(tmp_path, f"folder='{library}'", "cuts.label_ranges.teff=null", "archive.exclude=[hd044691a]")
    assert result.tally.after_snr == 3 and result.funnel.steps[2]["step"] == "not excluded by name"
    said = " ".join(capsys.readouterr().out.split())
    asked = re.search(r"pip download.*\n.*\n *python train.py (.*)", (ROOT / "docs" / "archives.md").read_text())
    assert asked is not None  # the documentation proposes what the command does
    for word in asked[1].split():
        assert word in said or word.startswith("data.path="), word


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("nowhere", "There is no folder nowhere: pip download"),
        ("empty", "has no MILES spectra"),
        ("no_table", "has spectra and no table of labels; give .* labels_table="),
        ("file.txt", "is a file and no wheel"),
    ],
)
def test_bad_input_is_a_sentence(folder, sentence, library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "no_table").mkdir()
    shutil.copy(library / INSIDE / "MILES_res2.50_star_m0505V.fits", tmp_path / "no_table")
    with pytest.raises(SpectangleError, match=sentence):
        prepare(Miles(folder), tmp_path / "my.h5")


def line_centre(wavelength: np.ndarray, flux: np.ndarray, centre: float, half: float) -> float:
    """Centre of gravity of a line over the chord of its window, in nm."""
    near = np.abs(wavelength - centre) < half
    depth = np.interp(wavelength[near], wavelength[near][[0, -1]], flux[near][[0, -1]]) - flux[near]
    return float((depth * wavelength[near]).sum() / depth.sum())


@pytest.mark.skipif(not REAL.is_dir(), reason="the MILES library does not lie beside the project")
def test_the_real_library(tmp_path):
    arguments = ["archive=miles", f"folder={REAL.resolve()}", "survey=miles.h5"]
    done = subprocess.run(
        [sys.executable, "-m", "spectangle", "prepare", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"4000 < teff < 7000 +│ +722 +│ +223", done.stdout)
    page = (tmp_path / "miles.html").read_text()
    assert "Not in the survey: 262" in page and "was removed by the cuts on labels" in page
    with Survey(tmp_path / "miles.h5", verify=True) as survey:
        assert len(survey) == 722 and survey.n_pixels == 1263 and survey.labels == ("teff", "logg", "fe_h")
        flux, wavelength, teff = survey.flux(), survey.wavelength, survey.label("teff")
        star = survey.column("name").tolist().index(b"HD224930")
        np.testing.assert_allclose([survey.label(name)[star] for name in survey.labels], [5305, 4.49, -0.75], rtol=1e-6)
        assert survey.column("miles_id")[star] == b"0001" and survey.column("refs")[star] == b"SKC"
    hot, cool = np.nanmean(flux[teff > 6500], axis=0), np.nanmean(flux[teff < 4500], axis=0)
    # NIST, vacuum: H-beta 486.269, H-alpha 656.461, Na D 589.158 and 589.756 (a blend here); in air they lie 0.14 to
    # 0.18 nm further to the blue
    assert line_centre(wavelength, hot, 486.269, 0.7) == pytest.approx(486.269, abs=0.06)
    assert line_centre(wavelength, hot, 656.461, 1.2) == pytest.approx(656.461, abs=0.03)
    assert line_centre(wavelength, cool, 589.457, 1.0) == pytest.approx(589.457, abs=0.03)
    assert abs(np.nanmean(flux) - 1) < 0.01 and np.isnan(flux).sum() < 10
