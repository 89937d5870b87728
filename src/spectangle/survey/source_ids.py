"""Gaia source_id: 63-bit integers from end to end; ids that passed through float64 are refused.

A Gaia source_id is HEALPix * 2^35 + running number * 2^7 + component, and the component is 0 in every release so far:
ids are multiples of 128 (Gaia DR3 data model, gaia_source.source_id). Above 2^60 neighbouring float64 numbers are 256
or more apart, so in a table that passed through float64 every large id is a multiple of that spacing.
"""

import re

import numpy as np

from spectangle.errors import SpectangleError

__all__ = ["NO_ID", "RoundedIds", "as_source_ids", "check_not_rounded", "parse_id", "positions_in"]

NO_ID = -1  # of a star that has none

BLANK = ("", "null", "none", "na", "n/a", "nan", "--")  # cells without a value
SPACING = 128
CHANCE = 2.0**-20
WHOLE = re.compile(r"[+-]?[0-9]{1,40}")


class RoundedIds(SpectangleError):
    """Ids that passed through floating point."""


def as_source_ids(values, where: str, first_row: int = 1) -> np.ndarray:
    """Return identifiers [n] int64; those that are masked, or text without an id ('', 'null'), become NO_ID.

    Arguments:
        values: Integers, or text of integers; never floats.
        where: File and column, for the sentence.
        first_row: Row of the first in the file, for the sentence.

    Raises:
        SpectangleError: Floating-point numbers, or text that is no integer (the row is named).
    """
    mask = np.ma.getmaskarray(values).reshape(-1)
    values = np.asarray(np.ma.getdata(values))
    if values.size != max(values.shape, default=1):
        raise SpectangleError(f"{where} came with the shape {values.shape}; one id for each star was expected.")
    values = values.reshape(-1)
    if values.dtype.kind in "iu":
        if values.dtype.kind == "u" and len(values) and values[~mask].max(initial=0) > np.iinfo(np.int64).max:
            raise SpectangleError(
                f"{where} holds {values[~mask].max()}; ids have 63 bits: whole numbers up to 9223372036854775807."
            )
        return np.where(mask, NO_ID, values.astype(np.int64))
    if values.dtype.kind == "f":
        raise RoundedIds(
            f"{where} came as {values.dtype.name}: Gaia ids need 63 bits and floats keep 53, so their last digits "
            "are lost. "
            "Read the table from the archive again with source_id as a 64-bit integer."
        )
    texts = values.tolist()
    known = [not no and not _is_blank(text) for text, no in zip(texts, mask.tolist(), strict=True)]
    return np.array(
        [parse_id(texts[i], f"{where}, row {first_row + i}") if here else NO_ID for i, here in enumerate(known)],
        dtype=np.int64,
    )


def _is_blank(text: object) -> bool:
    """Whether a cell of text says that there is no value."""
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    return text.strip().lower() in BLANK


def check_not_rounded(ids: np.ndarray, where: str) -> None:
    """Refuse ids [n] int64 that all are float64 numbers though true Gaia ids would not be (chance below 1e-6)."""
    big = ids[ids >= 2**60]
    spacing = np.spacing(big.astype(np.float64)).astype(np.int64)
    if len(big) == 0 or np.any(big % spacing):
        return
    if np.sum(np.log2(spacing / SPACING)) > -np.log2(CHANCE):
        raise RoundedIds(
            f"{where}: all {len(big)} ids above 2^60 are multiples of {spacing.min()}, as only numbers are that "
            "passed through float64 "
            f"(the first is {big[0]}); their last digits are lost. Get the ids from the archive again, as 64-bit "
            "integers or as text."
        )


def positions_in(ids: np.ndarray, catalogue: np.ndarray) -> np.ndarray:
    """Position [n] of each id in a sorted catalogue [m] of unique ids; -1 where it is not there."""
    if len(catalogue) == 0:
        return np.full(len(ids), -1)
    position = np.searchsorted(catalogue, ids).clip(max=len(catalogue) - 1)
    return np.where(catalogue[position] == ids, position, -1)


def parse_id(text, where: str) -> int:
    """Read one id from text or bytes.

    Raises:
        RoundedIds: It was written as a float.
        SpectangleError: It is no integer, or has more than 63 bits.
    """
    text = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else str(text)
    if WHOLE.fullmatch(text.strip()):  # int() also takes 1_0, and the digits of other scripts
        if abs(number := int(text)) > np.iinfo(np.int64).max:
            raise SpectangleError(
                f"{where}: source_id came as '{text}'; ids have 63 bits: whole numbers up to 9223372036854775807."
            )
        return number
    try:
        if "_" in text or not text.isascii():
            raise ValueError
        float(text)
    except ValueError:
        raise SpectangleError(
            f"{where}: source_id came as '{text}', which is no integer. Write the ids as whole integers."
        ) from None
    raise RoundedIds(
        f"{where}: source_id came as '{text}', a float, and has lost its last digits. Write the ids as whole integers."
    )
