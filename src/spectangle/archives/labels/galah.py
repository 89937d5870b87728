"""GALAH labels: the allstar FITS files of DR3 (with G from its Gaia value-added table) and DR4
(`galah_dr4_allstar_240705.fits`).

Columns by the table schemas of the releases (Buder et al. 2021, MNRAS 506, 150;
https://www.galah-survey.org/dr4/table_schema): flag_sp and flag_fe_h are 0 for good stars (the paper's wording would
remove every one of them). GALAH has no [M/H]: m_h is taken from fe_h; and DR4
has no alpha_fe: mg_fe stands for it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from spectangle.archives.labels.catalogue import Release, read_catalogue
from spectangle.archives.labels.label_table import LabelTable
from spectangle.archives.tables.columns import find_column
from spectangle.archives.tables.fits_columns import fits_column_names, read_fits_columns
from spectangle.errors import SpectangleError
from spectangle.survey.source_ids import as_source_ids, positions_in

__all__ = ["RELEASES", "read_galah"]

G = "phot_g_mean_mag"
LABELS = {"teff": "teff", "logg": "logg", "m_h": "fe_h"}
FLAGS = {"flag_sp": ("flag_sp", None), "flag_fe_h": ("flag_fe_h", None)}
COLUMNS = {"g_mag": G, "flag_sp": "flag_sp", "flag_fe_h": "flag_fe_h"}
RELEASES = {
    "DR3": Release(
        "GALAH DR3",
        {"source_id": "dr3_source_id", **LABELS, "alpha_fe": "alpha_fe", "snr": "snr_c2_iraf", **COLUMNS},
        "e_{}",
        FLAGS,
    ),
    "DR4": Release(
        "GALAH DR4",
        {"source_id": "gaiadr3_source_id", **LABELS, "alpha_fe": "mg_fe", "snr": "snr_px_ccd3", **COLUMNS},
        "e_{}",
        FLAGS,
        "GALAH DR4 has no alpha_fe: mg_fe is taken for it. Another: labels.galah_columns.alpha_fe=...",
    ),
}


def read_galah(
    path: str | Path,
    gaia: str | Path | None = None,
    release: str | None = None,
    columns: Mapping[str, str | None] | None = None,
) -> LabelTable:
    """Read the labels and flags of an allstar file.

    Arguments:
        path: The allstar file.
        gaia: The Gaia value-added table of DR3; None if the allstar file has G itself.
        release, columns: See :func:`catalogue.read_catalogue`.

    Raises:
        SpectangleError: A file is missing, truncated, lacks a column, or its ids are floats.
    """
    changed = dict(columns or {})
    if gaia is not None:
        table = read_catalogue(path, RELEASES, release, changed | {"g_mag": None}, "labels.galah_")
        return replace(table, g_mag=_magnitudes(Path(gaia), table.source_id))
    if "g_mag" not in changed and find_column(G, fits_column_names(Path(path))) is None:
        raise SpectangleError(
            f"{path} has no column {G}; give GALAH's Gaia value-added table as labels.galah_gaia "
            "(GALAH_DR3_VAC_GaiaEDR3_v2.fits), or "
            "name the column: labels.galah_columns.g_mag=... (null: without G)."
        )
    return read_catalogue(path, RELEASES, release, changed, "labels.galah_")


def _magnitudes(gaia: Path, ids: np.ndarray) -> np.ndarray:
    """G [n] for ids [n]; NaN where the table does not have the star."""
    names = fits_column_names(gaia)
    column = next(
        (name for name in ("dr3_source_id", "gaiadr3_source_id", "source_id") if find_column(name, names)),
        "dr3_source_id",
    )
    data = read_fits_columns(gaia, {"source_id": column, "g_mag": G})
    unique, first = np.unique(as_source_ids(data["source_id"], f"{gaia}, column {column}"), return_index=True)
    position = positions_in(ids, unique)
    return np.where(position >= 0, data["g_mag"][first][position], np.nan).astype(np.float32)
