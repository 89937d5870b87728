"""What a program gives to a survey, as it is stored: masks become NaN, units the survey's, and what cannot be kept is
refused.

Shapes: n stars, P pixels.
"""

from typing import Any

import astropy.units as u
import numpy as np

from spectangle.errors import SpectangleError
from spectangle.survey.format import storable
from spectangle.survey.label_units import in_unit
from spectangle.survey.source_ids import NO_ID, as_source_ids
from spectangle.survey.wavelengths import check_range, nanometres

__all__ = ["FILL", "as_column", "as_flux", "as_ids", "as_label", "as_wavelength", "without_fill"]

FILL = (-90.0, 1e15)  # outside lie fill values (-99, -9999, 1e20 ...): no normalised flux is there, nor its error


def as_wavelength(values: Any, where: str) -> np.ndarray:
    """Vacuum wavelengths [P] float64 in nm, of numbers in nm or of an astropy Quantity.

    Raises:
        SpectangleError: Some are masked, they do not increase, or numbers without a unit seem to have another one.
    """
    plain, mask = _parts(values)
    unit = getattr(values, "unit", None)
    wavelength = nanometres(_with_nan(plain, mask, where), unit, where)
    if unit is None:  # 5000 may be Angstrom; 5000 of a stated unit are infrared
        check_range(wavelength, where)
    return wavelength


def as_ids(values: Any, where: str) -> np.ndarray:
    """Identifiers [n] int64.

    Raises:
        SpectangleError: They are floats, have more than 63 bits, or one is missing.
    """
    ids = as_source_ids(values, where)
    if NO_ID in ids:
        raise SpectangleError(
            f"{where}, row {int(np.argmax(ids == NO_ID)) + 1} of this chunk: the star has no source_id; give each "
            "star one."
        )
    return ids


def as_flux(values: Any, where: str) -> np.ndarray:
    """Flux or errors [..., P] as float32, whatever holds them; NaN where they are masked or fill values.

    Raises:
        SpectangleError: They are no numbers, or have a unit.
    """
    if str(getattr(values, "unit", None) or "") and isinstance(values, u.Quantity):
        raise SpectangleError(
            f"{where} has the unit {values.unit}; flux over its continuum has none. Normalise the spectra."
        )
    plain, mask = _parts(values)
    if plain.dtype.kind not in "fiub":
        raise SpectangleError(f"{where} is of type {plain.dtype}; numbers were expected.")
    plain = without_fill(plain)
    return plain if mask is None else np.where(mask, np.float32(np.nan), plain)


def without_fill(values: np.ndarray) -> np.ndarray:
    """Normalised flux or errors [..., P] as float32, NaN in place of fill values."""
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = (values < FILL[0]) | (values > FILL[1])
        plain = values.astype(np.float32, copy=False)
    return np.where(wrong, np.float32(np.nan), plain) if wrong.any() else plain


def as_label(values: Any, unit: str, where: str, error: bool = False) -> np.ndarray:
    """Labels, or their errors, [n] float32 in the survey's unit, NaN where they are masked.

    Raises:
        SpectangleError: They are no numbers, or their unit is of something else.
    """
    plain, mask = _parts(values)
    numbers = in_unit(_with_nan(plain, mask, where), getattr(values, "unit", None), unit, where, error)
    with np.errstate(over="ignore"):  # what no float32 holds is infinite, which readers take for missing
        return np.asarray(numbers, np.float32)


def as_column(values: Any, where: str) -> np.ndarray:
    """Other values [n]: masked numbers are NaN, masked text is empty, both as a survey stores them.

    Raises:
        SpectangleError: Whole numbers are masked, for which there is no NaN.
    """
    plain, mask = _parts(values)
    if mask is None or not mask.any():
        return storable(plain)
    if plain.dtype.kind == "f":
        return np.where(mask, np.asarray(np.nan, plain.dtype), plain)
    if plain.dtype.kind in "US":
        return storable(np.where(mask, np.asarray("", plain.dtype), plain))
    raise SpectangleError(
        f"{where} is of type {plain.dtype} and masked in row {int(np.argmax(mask)) + 1} of this chunk; a survey has no "
        "mark for missing whole numbers. Give floats, where NaN is missing, or fill the column: column.filled(-1)."
    )


def _parts(values: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers as they came, and which of them are masked, of numpy's or astropy's masked arrays or any other."""
    if isinstance(values, (list, tuple)) and any(np.ma.is_masked(value) for value in values):
        values = np.ma.asarray(values)
    plain = np.asarray(getattr(values, "unmasked", np.ma.getdata(values)))
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else getattr(values, "mask", None)
    return plain, mask if isinstance(mask, np.ndarray) and mask.shape == plain.shape else None


def _with_nan(plain: np.ndarray, mask: np.ndarray | None, where: str) -> np.ndarray:
    """Numbers [n] float64, NaN where they are masked."""
    if plain.dtype.kind not in "fiub":
        raise SpectangleError(f"{where} is of type {plain.dtype}; numbers were expected.")
    numbers = plain.astype(np.float64)
    return numbers if mask is None else np.where(mask, np.nan, numbers)
