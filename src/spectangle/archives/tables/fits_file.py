"""FITS files of spectra: opened whole or refused, and their headers, broken cards left out."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from astropy.io import fits

from spectangle.errors import SpectangleError

__all__ = ["cards", "fits_parts", "header_of", "open_fits"]


def open_fits(file: Any, where: str) -> Any:
    """Open a FITS file and read it whole.

    Raises:
        SpectangleError: It is no FITS file, or is truncated.
    """
    hdulist = fits_parts(file, where)
    with _truncated_refused(where):
        for hdu in hdulist:
            _ = hdu.data
    return hdulist


def fits_parts(file: Any, where: str) -> Any:
    """Open a FITS file and read its headers; the data are read from it where they are used.

    Raises:
        SpectangleError: It is no FITS file, or is truncated.
    """
    with _truncated_refused(where):
        return fits.open(file, memmap=False, lazy_load_hdus=False)


@contextmanager
def _truncated_refused(where: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=".*truncated.*")
            yield
    except Exception as error:  # astropy raises many kinds
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SpectangleError(f"{where} cannot be read as FITS ({said}); copy or download it again.") from None


def header_of(hdulist: Any) -> dict[str, Any]:
    """All keywords of all parts, the first part's first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {key: value for hdu in reversed(list(hdulist)) for key, value in cards(hdu.header).items()}


def cards(header: fits.Header) -> dict[str, Any]:
    """Keywords and values of a header; cards that break the standard are left out."""
    found: dict[str, Any] = {}
    for card in header.cards:
        with suppress(fits.VerifyError):
            if card.keyword not in ("", "COMMENT", "HISTORY"):
                found[card.keyword] = card.value
    return found
