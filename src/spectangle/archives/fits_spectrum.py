"""One spectrum of a FITS file."""

import numpy as np
from astropy.io import fits

from spectangle.archives.air import need_specutils
from spectangle.archives.spectrum import Spectrum
from spectangle.errors import SpectangleError

__all__ = ["open_fits", "read_fits"]


def open_fits(file, where: str) -> fits.HDUList:
    """Open a FITS file.

    Raises:
        SpectangleError: It is no FITS file.
    """
    try:
        return fits.open(file, memmap=False)
    except OSError as error:
        raise SpectangleError(f"{where} cannot be read as FITS ({error}).") from None


def read_fits(hdulist: fits.HDUList, where: str, unit: str) -> Spectrum:
    """Read the spectrum."""
    need_specutils("1-D FITS spectra")
    from specutils import Spectrum as Loaded

    loaded = Loaded.read(hdulist, format="wcs1d-fits", spectral_axis_unit=unit)
    return Spectrum(np.asarray(loaded.spectral_axis.to_value("nm")), np.asarray(loaded.flux.value, dtype=np.float64))
