"""APOGEE DR17 labels: the allStar FITS file (`allStar-dr17-synspec_rev1.fits`, 3.7 GB; allStarLite has all that is read).

Columns: GAIAEDR3_SOURCE_ID (EDR3 ids are DR3 ids), GAIAEDR3_PHOT_G_MEAN_MAG, TEFF, LOGG, M_H, ALPHA_M and their _ERR,
ASPCAPFLAG (STAR_BAD = bit 23), FE_H_FLAG (0 = good), EXTRATARG (DUPLICATE = bit 4), SNR (SDSS DR17 data model of
allStar, https://www.sdss4.org/dr17/irspec/apogee-bitmasks; Abdurro'uf et al. 2022, ApJS 259, 35). [alpha/M] stands for
[alpha/Fe].
"""

from pathlib import Path

import numpy as np

from spectangle.archives.fits_columns import read_fits_columns
from spectangle.archives.labels import LabelTable
from spectangle.archives.source_ids import as_source_ids, check_not_rounded

__all__ = ["read_apogee"]

STAR_BAD, DUPLICATE = 23, 4
COLUMNS = {
    "source_id": "GAIAEDR3_SOURCE_ID",
    "g_mag": "GAIAEDR3_PHOT_G_MEAN_MAG",
    "aspcapflag": "ASPCAPFLAG",
    "fe_h_flag": "FE_H_FLAG",
    "extratarg": "EXTRATARG",
    "snr": "SNR",
}
LABELS = {"teff": "TEFF", "logg": "LOGG", "m_h": "M_H", "alpha_fe": "ALPHA_M"}


def read_apogee(path: str | Path, origin: str = "APOGEE DR17") -> LabelTable:
    """Read the labels and flags of an allStar file.

    Raises:
        SpectangleError: The file is missing, truncated, lacks a column, or its ids are floats.
    """
    wanted = COLUMNS | LABELS | {f"{name}_error": f"{column}_ERR" for name, column in LABELS.items()}
    data = read_fits_columns(Path(path), wanted)
    ids = as_source_ids(data["source_id"], f"{path}, column GAIAEDR3_SOURCE_ID")
    check_not_rounded(ids, f"{path}, column GAIAEDR3_SOURCE_ID")
    return LabelTable(
        origin=origin,
        source_id=ids,
        labels={name: data[name].astype(np.float32) for name in LABELS},
        errors={name: data[f"{name}_error"].astype(np.float32) for name in LABELS},
        g_mag=data["g_mag"].astype(np.float32),
        flags={
            "EXTRATARG duplicate": _bit(data["extratarg"], DUPLICATE),
            "STAR_BAD": _bit(data["aspcapflag"], STAR_BAD),
            "FE_H_FLAG": data["fe_h_flag"] != 0,
        },
        preference=np.nan_to_num(data["snr"].astype(np.float32), nan=-1),
    )


def _bit(flags: np.ndarray, bit: int) -> np.ndarray:
    """Whether a bit is set in flags [n]."""
    return (flags.astype(np.int64) >> bit) & 1 == 1
