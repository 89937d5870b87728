"""GALAH DR3 labels: the allstar FITS file (`GALAH_DR3_main_allstar_v2.fits`) with G from its Gaia value-added table.

Columns: dr3_source_id, teff, logg, fe_h, alpha_fe and their e_ errors, flag_sp and flag_fe_h (0 = good; the paper's
wording would remove every good star), snr_c2_iraf (Buder et al. 2021, MNRAS 506, 150). GALAH has no [M/H]: m_h is taken
from fe_h. G comes from `GALAH_DR3_VAC_GaiaEDR3_v2.fits` (dr3_source_id, phot_g_mean_mag).
"""

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from spectangle.archives.columns import find_column
from spectangle.archives.fits_columns import read_fits_columns
from spectangle.archives.labels import LabelTable
from spectangle.archives.source_ids import as_source_ids, check_not_rounded, positions_in
from spectangle.errors import SpectangleError

__all__ = ["read_galah"]

COLUMNS = {"source_id": "dr3_source_id", "flag_sp": "flag_sp", "flag_fe_h": "flag_fe_h", "snr": "snr_c2_iraf"}
LABELS = {"teff": "teff", "logg": "logg", "m_h": "fe_h", "alpha_fe": "alpha_fe"}
G = {"source_id": "dr3_source_id", "g_mag": "phot_g_mean_mag"}


def read_galah(path: str | Path, gaia: str | Path | None = None, origin: str = "GALAH DR3") -> LabelTable:
    """Read the labels and flags of an allstar file.

    Arguments:
        path: The allstar file.
        gaia: The Gaia value-added table; None if the allstar file has phot_g_mean_mag itself.
        origin: Name of the catalogue in the survey.

    Raises:
        SpectangleError: A file is missing, truncated, lacks a column, or its ids are floats.
    """
    wanted = COLUMNS | LABELS | {f"{name}_error": f"e_{column}" for name, column in LABELS.items()}
    data = read_fits_columns(Path(path), wanted)
    ids = as_source_ids(data["source_id"], f"{path}, column dr3_source_id")
    check_not_rounded(ids, f"{path}, column dr3_source_id")
    return LabelTable(
        origin=origin,
        source_id=ids,
        labels={name: data[name].astype(np.float32) for name in LABELS},
        errors={name: data[f"{name}_error"].astype(np.float32) for name in LABELS},
        g_mag=_magnitudes(Path(path), gaia, ids),
        flags={"flag_sp": data["flag_sp"] != 0, "flag_fe_h": data["flag_fe_h"] != 0},
        preference=np.nan_to_num(data["snr"].astype(np.float32), nan=-1),
    )


def _magnitudes(path: Path, gaia: str | Path | None, ids: np.ndarray) -> np.ndarray:
    """G [n] for ids [n]; NaN where the table does not have the star."""
    if gaia is None:
        with fits.open(path, memmap=True) as hdus:
            table: Any = hdus[1]
            if find_column(G["g_mag"], table.columns.names) is None:
                raise SpectangleError(
                    f"{path} has no column phot_g_mean_mag; give GALAH's Gaia value-added table as labels.galah_gaia "
                    "(GALAH_DR3_VAC_GaiaEDR3_v2.fits)."
                )
        return read_fits_columns(path, {"g_mag": G["g_mag"]})["g_mag"].astype(np.float32)
    data = read_fits_columns(Path(gaia), G)
    table_ids = as_source_ids(data["source_id"], f"{gaia}, column dr3_source_id")
    unique, first = np.unique(table_ids, return_index=True)
    position = positions_in(ids, unique)
    return np.where(position >= 0, data["g_mag"][first][position], np.nan).astype(np.float32)
