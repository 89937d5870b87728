"""Archive files to survey files: Gaia RVS spectra with APOGEE and GALAH labels, GANDALF's arrays, plain arrays, 1-D
files.
"""

from spectangle.archives.gaia.download import GaiaDataLink
from spectangle.archives.gaia.gaia_files import GaiaFiles
from spectangle.archives.gandalf import Gandalf
from spectangle.archives.miles.library import Miles
from spectangle.archives.plain import Plain
from spectangle.archives.preparation import LabelSources, prepare
from spectangle.archives.prepared import Prepared
from spectangle.archives.sample import Cuts
from spectangle.archives.spectra.continuum import Continuum
from spectangle.archives.spectra.resample import Pixels
from spectangle.archives.spectra.spectra1d import Spectra1D
from spectangle.archives.spectra.spectrum_form import SpectrumForm

__all__ = [
    "Continuum",
    "Cuts",
    "GaiaDataLink",
    "GaiaFiles",
    "Gandalf",
    "LabelSources",
    "Miles",
    "Pixels",
    "Plain",
    "Prepared",
    "Spectra1D",
    "SpectrumForm",
    "prepare",
]
