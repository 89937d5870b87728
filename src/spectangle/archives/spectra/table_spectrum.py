"""One spectrum of a table: a row per pixel (or one row of arrays) in a FITS table, or in a text file of any form that
astropy reads.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spectangle.archives.labels.label_table import as_text
from spectangle.archives.spectra.spectrum import Spectrum
from spectangle.archives.spectra.spectrum_form import SpectrumForm, in_nanometres, medium_of, unit_of, without_log
from spectangle.archives.tables.columns import find_column, numbers, require_columns
from spectangle.archives.tables.table_file import first_table
from spectangle.errors import SpectangleError

__all__ = ["TEXT_ENDINGS", "read_text", "table_spectrum"]

TEXT_ENDINGS = (".txt", ".dat", ".asc", ".ascii", ".csv", ".tsv", ".ecsv", ".tbl", ".xml", ".vot", ".votable")
VARIANCES = {"ivar": -0.5, "flux_ivar": -0.5, "invvar": -0.5, "variance": 0.5, "var": 0.5, "flux_var": 0.5}  # powers
NAMES = {
    "wavelength": [
        "wavelength",
        "wave",
        "lambda",
        "lam",
        "wl",
        "wvl",
        "wavelength_air",
        "wavelength_vac",
        "wave_air",
        "wave_vac",
        "lambda_air",
        "lambda_vac",
        "awav",
        "loglam",
        "log_lambda",
        "log_wave",
        "loglambda",
        "spectral_axis",
        "frequency",
        "wavenumber",
        "energy",
    ],
    "flux": ["flux", "normalized_flux", "norm_flux", "flux_norm", "fluxes", "intensity", "counts", "spec"],
    "flux_error": [
        "flux_error",
        "flux_err",
        "fluxerr",
        "error",
        "err",
        "errors",
        "sigma",
        "e_flux",
        "uncertainty",
        "flux_uncertainty",
        "std",
        "stdev",
        "noise",
        *VARIANCES,
    ],
    "mask": ["mask", "dq"],
}


def read_text(path: Path, form: SpectrumForm) -> tuple[Spectrum, dict[str, Any]]:
    """Read a text file: whitespace, commas or tabs between columns, with a header or without, ECSV, IPAC, VOTable.

    Returns:
        The spectrum, wavelengths in nm, flux and error [P]; and what the file says besides (ECSV's meta, comments).

    Raises:
        SpectangleError: It is no table of numbers, or its columns have no known names.
    """
    table = first_table(path.read_bytes(), str(path))
    header = dict(table.meta)
    return table_spectrum(table, header, str(path), form), header


def table_spectrum(table: Any, header: Mapping[str, Any], where: str, form: SpectrumForm) -> Spectrum:
    """The spectrum of a table, wavelengths in nm, flux and error [P].

    Columns are those of `form.columns`, others are found by common names; without names they are wavelength, flux and,
    if there is a third, its error. A name that starts with log means a logarithm, ivar an inverse variance, variance
    what it says. Pixels whose mask is not 0 are masked.

    Raises:
        SpectangleError: There are no such columns, or no numbers in them.
    """
    found = _columns(table, where, form)
    values = {key: (_marked if key == "mask" else numbers)(table[column], where) for key, column in found.items()}
    if len({len(v) for v in values.values()}) > 1 or len(values["flux"]) < 2:
        lengths = ", ".join(str(len(v)) for v in values.values())
        raise SpectangleError(
            f"{where}: columns {', '.join(found.values())} have {lengths} values; as many in each were expected, "
            "two at least."
        )
    column = found["wavelength"]
    unit = unit_of(table[column].unit or header.get("CUNIT1") or form.wavelength_unit, f"{where}, column {column}")
    wavelength = values["wavelength"]
    if column.lower().startswith("log"):
        wavelength = without_log(wavelength, unit, where)
    medium = medium_of(header, column) if unit.physical_type == "length" else "vacuum"
    return Spectrum(
        in_nanometres(wavelength, unit),
        np.where(values["mask"], np.nan, values["flux"]) if "mask" in values else values["flux"],
        _error(values.get("flux_error"), found.get("flux_error", "")),
        medium,
    )


def _columns(table: Any, where: str, form: SpectrumForm) -> dict[str, str]:
    """{wavelength, flux, flux_error, mask: column}, the last two only where they are there."""
    given = require_columns(form.named, table.colnames, where, "archive.form.columns.{}=...")
    if re.fullmatch(r"col\d+", table.colnames[0]) and len(table.colnames) in (2, 3) and not given:
        return dict(zip(NAMES, table.colnames, strict=False))
    found = {key: given.get(key) or _first(names, table.colnames) for key, names in NAMES.items()}
    for key in ("wavelength", "flux"):
        if found[key] is None:
            shown = ", ".join(table.colnames[:30])
            raise SpectangleError(
                f"{where}: no column is known as {key}; it has: {shown}. Name it: archive.form.columns.{key}=..."
            )
    return {key: column for key, column in found.items() if column is not None}


def _first(names: Iterable[str], available: list[str]) -> str | None:
    return next((column for name in names if (column := find_column(name, available))), None)


def _marked(column: Any, where: str) -> np.ndarray:
    """Which pixels [P] a mask marks: numbers that are not 0, or the words True and T; none where it has no value."""
    cells = np.ma.asarray(column).reshape(-1)
    if cells.dtype.kind in "US":
        words = np.char.lower(as_text(cells.filled("")))
        if np.isin(words, ("true", "t", "false", "f", "")).all():
            return np.isin(words, ("true", "t"))
    marks = np.nan_to_num(numbers(column, where)) != 0
    if marks.all():
        raise SpectangleError(
            f"{where}: column '{column.name}' marks every pixel; 0 was expected where the flux is good. Turn it round, "
            "or rename it if it is no mask."
        )
    return marks


def _error(values: np.ndarray | None, column: str) -> np.ndarray | None:
    """Standard deviations [P] of a column of them, of variances or of inverse variances."""
    if values is None or (power := VARIANCES.get(column.lower())) is None:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, values**power, np.nan)
