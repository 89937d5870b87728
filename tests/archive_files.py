"""Write small archive files to the published data models, for tests and the benchmark."""

import gzip
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.io.votable.tree import Param
from astropy.table import Table

N_PIXELS = 2401
ECSV_HEADER = """# %ECSV 1.0
# ---
# delimiter: ','
# datatype:
# - {name: source_id, datatype: int64}
# - {name: solution_id, datatype: int64}
# - {name: ra, unit: deg, datatype: float64}
# - {name: dec, unit: deg, datatype: float64}
# - {name: flux, datatype: string, subtype: 'float32[null]'}
# - {name: flux_error, datatype: string, subtype: 'float32[null]'}
# - {name: combined_transits, datatype: int16}
# - {name: combined_ccds, datatype: int16}
# - {name: deblended_ccds, datatype: int16}
"""
BULK_COLUMNS = [
    "source_id",
    "solution_id",
    "ra",
    "dec",
    "flux",
    "flux_error",
    "combined_transits",
    "combined_ccds",
    "deblended_ccds",
]


class Stars:
    """n stars with Gaia-like ids [n], labels [n] and RVS-like spectra [n, P] whose lines follow the labels."""

    def __init__(self, n: int = 20, n_pixels: int = N_PIXELS, seed: int = 0, edge: int = 7):
        rng = np.random.default_rng(seed)
        healpix = np.sort(rng.integers(0, 12 * 4**12, n))
        self.ids = (healpix << 35) + (rng.integers(1, 1 << 25, n) << 7)
        self.labels = {
            "teff": rng.uniform(3800, 6800, n),
            "logg": rng.uniform(0.5, 4.8, n),
            "m_h": rng.uniform(-1.5, 0.4, n),
            "alpha_fe": rng.uniform(-0.1, 0.35, n),
        }
        self.g = rng.uniform(8.1, 13.9, n)
        self.wavelength = np.round(846 + 0.01 * np.arange(n_pixels), 4)
        self.flux = self._spectra(n_pixels, rng)
        self.error = rng.uniform(0.004, 0.02, (n, n_pixels)).astype(np.float32)
        if edge:
            self.flux[:, -edge:] = np.nan
            self.error[:, -edge:] = np.nan

    def _spectra(self, n_pixels: int, rng) -> np.ndarray:
        depth = 0.35 + 0.1 * self.labels["m_h"] + (6000 - self.labels["teff"]) / 3e4
        width = 0.12 + 0.02 * self.labels["logg"]
        flux = np.ones((len(self.ids), n_pixels))
        for centre in (850.035, 854.444, 866.452):
            flux -= depth[:, None] * np.exp(-((self.wavelength - centre) ** 2) / 2 / width[:, None] ** 2)
        for centre in rng.uniform(847, 869, 25):
            flux -= (
                0.08
                * (1.2 + self.labels["alpha_fe"][:, None])
                * np.exp(-((self.wavelength - centre) ** 2) / 2 / 0.04**2)
            )
        return (flux + rng.normal(0, 0.01, flux.shape)).astype(np.float32)

    def table(self, **more) -> Table:
        return Table({"source_id": self.ids, **self.labels, "phot_g_mean_mag": self.g, **more})


def list_text(values) -> str:
    return "[" + ",".join("NaN" if not np.isfinite(v) else str(v) for v in values) + "]"


def bulk_rows(stars: Stars, columns=BULK_COLUMNS) -> list[str]:
    rows = []
    for i, source_id in enumerate(stars.ids):
        cells = {
            "source_id": str(source_id),
            "solution_id": "5950420259779346465",
            "ra": "291.4",
            "dec": "38.6",
            "flux": f'"{list_text(stars.flux[i])}"',
            "flux_error": f'"{list_text(stars.error[i])}"',
            "combined_transits": "17",
            "combined_ccds": "47",
            "deblended_ccds": "null",
        }
        rows.append(",".join(cells.get(name, "1") for name in columns))
    return rows


def write_bulk(path: Path, stars: Stars, rows: list[str] | None = None, columns=BULK_COLUMNS) -> Path:
    text = (
        ECSV_HEADER
        + ",".join(columns)
        + "\n"
        + "\n".join(rows if rows is not None else bulk_rows(stars, columns))
        + "\n"
    )
    path.write_bytes(gzip.compress(text.encode(), 6) if path.suffix == ".gz" else text.encode())
    return path


def individual_table(stars: Stars, i: int, with_ids: bool = True) -> Table:
    """DataLink INDIVIDUAL (DR4: DATAMODEL_STANDARD): a row per pixel."""
    table = Table({"wavelength": stars.wavelength, "flux": stars.flux[i], "flux_error": stars.error[i]})
    table["wavelength"].unit = "nm"
    if with_ids:
        table.add_column(np.full(len(table), stars.ids[i]), name="source_id", index=0)
    return table


def raw_table(stars: Stars, with_wavelength: bool = False) -> Table:
    """DataLink RAW (DR4: DATAMODEL_GAIA): a row per star."""
    table = Table(
        {
            "source_id": stars.ids,
            "flux": stars.flux,
            "flux_error": stars.error,
            "combined_transits": np.full(len(stars.ids), 17),
        }
    )
    if with_wavelength:
        table["wavelength"] = np.tile(stars.wavelength, (len(stars.ids), 1))
        table["wavelength"].unit = "nm"
    return table


def write_table(path: Path, table: Table, source_id: int | None = None) -> Path:
    """Write a table in the format of the suffix; an id given apart goes where the format keeps such things."""
    kind = path.suffix
    if kind == ".xml":
        document = from_table(table)
        if source_id is not None:
            first = document.get_first_table()
            first.params.append(Param(document, name="source_id", datatype="long", value=str(source_id)))
        document.to_xml(str(path))
    elif kind == ".fits":
        hdu = fits.table_to_hdu(table)
        if source_id is not None:
            hdu.header["SOURCE_ID"] = source_id
        hdu.writeto(path)
    elif kind == ".ecsv":
        if source_id is not None:
            table.meta["source_id"] = int(source_id)
        table.write(path, format="ascii.ecsv", delimiter=",")
    else:
        table.write(path, format="ascii.csv")
    return path


def write_apogee(path: Path, stars: Stars, **changes) -> Path:
    """An allStar file: the columns that are read among others, one of them 2-D, in HDU 1 of several."""
    n = len(stars.ids)
    columns = {
        "APOGEE_ID": np.array([f"2M{i:016d}" for i in range(n)]),
        "GAIAEDR3_SOURCE_ID": stars.ids,
        "GAIAEDR3_PHOT_G_MEAN_MAG": stars.g.astype(np.float32),
        "PARAM": np.zeros((n, 9), dtype=np.float32),
        "TEFF": stars.labels["teff"].astype(np.float32),
        "LOGG": stars.labels["logg"].astype(np.float32),
        "M_H": stars.labels["m_h"].astype(np.float32),
        "ALPHA_M": stars.labels["alpha_fe"].astype(np.float32),
        "TEFF_ERR": np.full(n, 50, dtype=np.float32),
        "LOGG_ERR": np.full(n, 0.05, dtype=np.float32),
        "M_H_ERR": np.full(n, 0.02, dtype=np.float32),
        "ALPHA_M_ERR": np.full(n, 0.02, dtype=np.float32),
        "ASPCAPFLAG": np.zeros(n, dtype=np.int64),
        "FE_H_FLAG": np.zeros(n, dtype=np.int32),
        "EXTRATARG": np.zeros(n, dtype=np.int32),
        "SNR": np.full(n, 120, dtype=np.float32),
    } | changes
    hdus = [fits.PrimaryHDU(), fits.table_to_hdu(Table(columns)), fits.table_to_hdu(Table({"PARAM_SYMBOL": ["TEFF"]}))]
    fits.HDUList(hdus).writeto(path)
    return path


def write_galah(path: Path, stars: Stars, gaia: Path | None = None, **changes) -> Path:
    """An allstar file, and its Gaia value-added table when a path is given."""
    n = len(stars.ids)
    columns = {"sobject_id": np.arange(n) + 131116000501004, "dr3_source_id": stars.ids}
    for name, column in {"teff": "teff", "logg": "logg", "m_h": "fe_h", "alpha_fe": "alpha_fe"}.items():
        columns[column] = stars.labels[name].astype(np.float64)
        columns[f"e_{column}"] = np.full(n, 80.0 if name == "teff" else 0.05)
    columns |= {
        "flag_sp": np.zeros(n, dtype=np.int64),
        "flag_fe_h": np.zeros(n, dtype=np.int64),
        "snr_c2_iraf": np.full(n, 40.0),
    }
    fits.table_to_hdu(Table(columns | changes)).writeto(path)
    if gaia is not None:
        order = np.random.default_rng(1).permutation(n)
        fits.table_to_hdu(Table({"dr3_source_id": stars.ids[order], "phot_g_mean_mag": stars.g[order]})).writeto(gaia)
    return path
