"""Archive files to survey files: Gaia RVS spectra with APOGEE and GALAH labels, GANDALF's arrays, plain arrays, 1-D
files; and what an archive of one's own needs (:class:`Source`).
"""

from spectangle.archives.gaia.download import GaiaDataLink
from spectangle.archives.gaia.gaia_files import GaiaFiles
from spectangle.archives.gandalf import Gandalf
from spectangle.archives.labels.label_table import LabelTable
from spectangle.archives.miles.miles_source import Miles
from spectangle.archives.plain import Plain
from spectangle.archives.preparation import LabelSources, prepare
from spectangle.archives.prepared import Prepared
from spectangle.archives.sample import Cuts
from spectangle.archives.source import Source
from spectangle.archives.spectra.chunk import SpectraChunk
from spectangle.archives.spectra.continuum import Continuum
from spectangle.archives.spectra.resample import Pixels
from spectangle.archives.spectra.spectra1d import Spectra1D
from spectangle.archives.spectra.spectrum import Spectrum, normalised
from spectangle.archives.spectra.spectrum_form import SpectrumForm
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.archives.tables.fits_file import open_fits

__all__ = [
    "BadRows",
    "Continuum",
    "Cuts",
    "GaiaDataLink",
    "GaiaFiles",
    "Gandalf",
    "LabelSources",
    "LabelTable",
    "Miles",
    "Pixels",
    "Plain",
    "Prepared",
    "Source",
    "SpectraChunk",
    "Spectra1D",
    "Spectrum",
    "SpectrumForm",
    "normalised",
    "open_fits",
    "prepare",
]
