"""STILTS, TOPCAT's reader, finds in a predicted table what was written: ids, units, UCDs, descriptions, nulls."""

import csv
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table

from spectangle.inference.predict import predict
from spectangle.inference.quality import Quality
from spectangle.runs.folder import Run
from spectangle.survey.file import Survey

pytestmark = pytest.mark.skipif(shutil.which("stilts") is None, reason="needs STILTS (Debian package stilts)")
N, BLANK = 12, 3  # stars, and the one without a usable pixel
IDS = np.iinfo(np.int64).max - np.arange(N)  # a double would round them


def stilts(*words: str) -> str:
    """Run STILTS; whatever it complains of fails the test."""
    done = subprocess.run(["stilts", *words], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def rows(path: Path, *commands: str) -> list[dict[str, str]]:
    """The table after some of STILTS' commands."""
    words = [f"cmd={command}" for command in commands]
    return list(csv.DictReader(io.StringIO(stilts("tpipe", f"in={path}", *words, "ofmt=csv"))))


@pytest.fixture(scope="module", params=[".fits", ".vot"])
def path(request, toy_runs, toy_survey: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stilts")
    with Survey(toy_survey) as survey:
        flux, error, wavelength = survey.flux(0, N), survey.flux_error(0, N), survey.wavelength
    assert error is not None
    flux[BLANK] = np.nan
    np.savez(folder / "spectra.npz", flux=flux, flux_error=error, source_id=IDS, wavelength=wavelength)
    out = str(folder / f"stars{request.param}")
    return predict(str(toy_runs[0]), str(folder / "spectra.npz"), out, latents=True)


@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")  # dex is no unit of the FITS standard
def test_ids_and_values_are_unharmed(path: Path):
    written, found = Table.read(path), rows(path)
    assert [int(row["source_id"]) for row in found] == IDS.tolist()
    assert [int(row["flags"]) for row in found] == np.asarray(written["flags"]).tolist()
    floats = [name for name in written.colnames if written[name].dtype.kind == "f"]
    assert "teff" in floats and "z03" in floats
    for name in floats:
        values = np.array([float(row[name] or "nan") for row in found], np.float32)
        np.testing.assert_array_equal(values, np.ma.filled(written[name], np.nan))


def test_a_star_without_data_has_nulls(path: Path):
    (blank,) = rows(path, 'select "NULL_teff && NULL_teff_uncertainty && NULL_chi2 && NULL_z00"')
    assert int(blank["source_id"]) == IDS[BLANK] and int(blank["flags"]) == Quality.NO_DATA + Quality.MASKED
    assert blank["teff"] == blank["snr"] == ""


def test_columns_have_types_units_ucds_and_descriptions(path: Path):
    columns = {row["Name"]: row for row in rows(path, "meta name class units ucd description")}
    assert columns["source_id"]["Class"] == "Long" and columns["flags"]["Class"] == "Integer"
    assert columns["teff"]["Units"] == columns["teff_uncertainty"]["Units"] == "K"
    assert columns["logg"]["Units"] == columns["m_h_uncertainty"]["Units"] == "dex"
    assert columns["source_id"]["UCD"] == "meta.id;meta.main" and columns["flags"]["UCD"] == "meta.code.qual"
    assert columns["logg_uncertainty"]["UCD"] == "stat.error;phys.gravity"
    assert all(check_ucd(row["UCD"] or None, check_controlled_vocabulary=True) for row in columns.values())
    assert all(row["Description"] for row in columns.values())
    assert columns["teff"]["Description"] == "effective temperature"
    assert columns["flags"]["Description"].endswith(Quality.legend())  # a long one is whole


def test_parameters_name_the_run(path: Path, toy_runs):
    printed = stilts("tpipe", f"in={path}", "omode=meta")
    assert Run(toy_runs[0]).checkpoint_hash in printed and "spectangle" in printed and Quality.legend() in printed


def test_the_votable_is_valid(path: Path):
    if path.suffix == ".vot":
        assert stilts("votlint", f"votable={path}") == ""
