"""Catalogues of labels: the releases' own columns by their data models, others by keys."""

from pathlib import Path

import numpy as np
import pytest
from archive_files import Stars, write_apogee, write_galah
from astropy.io import fits
from astropy.table import Table

from spectangle.archives.labels.apogee import read_apogee
from spectangle.archives.labels.galah import read_galah
from spectangle.archives.sample import Cuts, Funnel, apply_cuts
from spectangle.errors import SpectangleError


@pytest.fixture(scope="module")
def stars():
    return Stars(6, n_pixels=20)


def renamed(path: Path, names: dict[str, str], before: tuple = (), **more) -> Path:
    """The first table of a file with other names, other columns, and perhaps a table before it."""
    table = Table.read(path, hdu=1)
    for old, new in names.items():
        table.rename_column(old, new) if new else table.remove_column(old)
    for name, values in more.items():
        table[name] = values
    empty = [fits.table_to_hdu(table[:0])] if before else []
    fits.HDUList([fits.PrimaryHDU(), *empty, fits.table_to_hdu(table)]).writeto(path, overwrite=True)
    return path


def dr16(path: Path, stars: Stars) -> Path:
    names = {"GAIAEDR3_SOURCE_ID": "GAIA_SOURCE_ID", "GAIAEDR3_PHOT_G_MEAN_MAG": "GAIA_PHOT_G_MEAN_MAG"}
    return renamed(write_apogee(path, stars, ASPCAPFLAG=np.array([0, 1 << 23, 0, 0, 0, 0])), names)


def dr19(path: Path, stars: Stars) -> Path:
    """astraAllStarASPCAP: an empty table before, logical flags, lower case, one star at two telescopes."""
    names = {
        "GAIAEDR3_SOURCE_ID": "gaia_dr3_source_id",
        "GAIAEDR3_PHOT_G_MEAN_MAG": "g_mag",
        "SNR": "snr",
        "FE_H_FLAG": "fe_h_flags",
    }
    labels = {"TEFF": "teff", "LOGG": "logg", "M_H": "m_h_atm", "ALPHA_M": "alpha_m_atm"}
    names |= (
        labels
        | {f"{old}_ERR": f"e_{new}" for old, new in labels.items()}
        | dict.fromkeys(("ASPCAPFLAG", "EXTRATARG", "PARAM"), "")
    )
    return renamed(write_apogee(path, stars), names, before=(True,), flag_bad=np.arange(6) == 1)


def dr4(path: Path, stars: Stars) -> Path:
    names = {
        "dr3_source_id": "gaiadr3_source_id",
        "alpha_fe": "mg_fe",
        "e_alpha_fe": "e_mg_fe",
        "snr_c2_iraf": "snr_px_ccd3",
    }
    return renamed(
        write_galah(path, stars, flag_sp=(np.arange(6) == 1).astype(np.int64)),
        names,
        phot_g_mean_mag=stars.g.astype(np.float32),
    )


RELEASES = {"APOGEE DR16": (dr16, read_apogee), "SDSS DR19": (dr19, read_apogee), "GALAH DR4": (dr4, read_galah)}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", RELEASES)
def test_each_release_is_known_by_its_columns(tmp_path, stars, name, packed):
    write, read = RELEASES[name]
    path = write(tmp_path / f"catalogue.fits{packed}", stars)
    table = read(path)
    assert table.origin == name
    np.testing.assert_array_equal(table.source_id, stars.ids)
    np.testing.assert_allclose(table.g_mag, stars.g, rtol=1e-6)
    for label, values in stars.labels.items():
        np.testing.assert_allclose(table.labels[label], values, rtol=1e-6)
        assert np.isfinite(table.errors[label]).all()
    kept = apply_cuts(table, Cuts(), Funnel())
    np.testing.assert_array_equal(np.sort(kept.source_id), np.sort(np.delete(stars.ids, 1)))  # the flagged star is cut
    assert bool(table.notes) == (name in ("APOGEE DR16", "GALAH DR4"))


def test_other_columns_are_named_by_keys(tmp_path, stars):
    path = renamed(
        write_apogee(tmp_path / "a.fits", stars),
        {"GAIAEDR3_SOURCE_ID": "MY_ID", "ALPHA_M": "", "SNR": "SN"},
        MY_TEFF=np.full(6, 5000.0),
    )
    with pytest.raises(
        SpectangleError,
        match=r"a.fits has no column 'GAIAEDR3_SOURCE_ID'.* name the column: labels.apogee_columns.source_id=...",
    ):
        read_apogee(path)
    table = read_apogee(
        path, columns={"source_id": "MY_ID", "teff": "MY_TEFF", "snr": "SN", "alpha_fe": None, "extratarg": None}
    )
    np.testing.assert_array_equal(table.source_id, stars.ids)
    assert (
        set(table.labels) == {"teff", "logg", "m_h"}
        and (table.labels["teff"] == 5000).all()
        and "teff" not in table.errors
    )
    assert list(table.flags) == ["STAR_BAD", "FE_H_FLAG"]
    with pytest.raises(SpectangleError, match="labels.apogee_columns has the key 'tef'; it can have source_id"):
        read_apogee(path, columns={"tef": "MY_TEFF"})
    with pytest.raises(SpectangleError, match="labels.apogee_release=DR18 is not known; it can be DR17, DR16, DR19"):
        read_apogee(path, release="DR18")


def test_missing_ids_of_a_catalogue_are_no_stars(tmp_path, stars):
    table = read_apogee(
        write_apogee(tmp_path / "a.fits", stars, GAIAEDR3_SOURCE_ID=np.where(np.arange(6) < 2, 0, stars.ids))
    )
    assert len(apply_cuts(table, Cuts(), Funnel())) == 4
