"""APOGEE labels: the allStar FITS files of DR17 (allStar and allStarLite), DR16 and SDSS DR19 (astraAllStarASPCAP).

Columns by the data models of the releases (https://www.sdss4.org/dr17/irspec/apogee-bitmasks; Abdurro'uf et al. 2022,
ApJS 259, 35; Joensson et al. 2020, AJ 160, 120 for DR16; Meszaros et al. 2025, arXiv:2506.07845 for DR19): ASPCAPFLAG
has STAR_BAD as bit 23,
EXTRATARG DUPLICATE as bit 4, the flags of [Fe/H] are 0 for good stars, and DR19 has flag_bad instead. [alpha/M] stands
for [alpha/Fe].
"""

from collections.abc import Mapping
from pathlib import Path

from spectangle.archives.labels.catalogue import Release, read_catalogue
from spectangle.archives.labels.label_table import LabelTable

__all__ = ["RELEASES", "read_apogee"]

LABELS = {"teff": "TEFF", "logg": "LOGG", "m_h": "M_H", "alpha_fe": "ALPHA_M", "snr": "SNR"}
FLAG_COLUMNS = {"extratarg": "EXTRATARG", "aspcapflag": "ASPCAPFLAG", "fe_h_flag": "FE_H_FLAG"}
FLAGS = {"extratarg": ("EXTRATARG duplicate", 4), "aspcapflag": ("STAR_BAD", 23), "fe_h_flag": ("FE_H_FLAG", None)}
RELEASES = {
    "DR17": Release(
        "APOGEE DR17",
        {"source_id": "GAIAEDR3_SOURCE_ID", "g_mag": "GAIAEDR3_PHOT_G_MEAN_MAG", **LABELS, **FLAG_COLUMNS},
        "{}_ERR",
        FLAGS,
    ),
    "DR16": Release(
        "APOGEE DR16",
        {"source_id": "GAIA_SOURCE_ID", "g_mag": "GAIA_PHOT_G_MEAN_MAG", **LABELS, **FLAG_COLUMNS},
        "{}_ERR",
        FLAGS,
        "APOGEE DR16 has the source_ids of Gaia DR2: stars whose id changed in DR3 do not join. DR17 has DR3's.",
    ),
    "DR19": Release(
        "SDSS DR19",
        {
            "source_id": "gaia_dr3_source_id",
            "g_mag": "g_mag",
            "teff": "teff",
            "logg": "logg",
            "m_h": "m_h_atm",
            "alpha_fe": "alpha_m_atm",
            "snr": "snr",
            "flag_bad": "flag_bad",
            "fe_h_flag": "fe_h_flags",
        },
        "e_{}",
        {"flag_bad": ("flag_bad", None), "fe_h_flag": ("fe_h_flags", None)},
    ),
}


def read_apogee(
    path: str | Path, release: str | None = None, columns: Mapping[str, str | None] | None = None
) -> LabelTable:
    """Read the labels and flags of an allStar file; arguments as in :func:`catalogue.read_catalogue`.

    Raises:
        SpectangleError: The file is missing, truncated, lacks a column, or its ids are floats.
    """
    return read_catalogue(path, RELEASES, release, columns, "labels.apogee_")
