"""Archive files to survey files: Gaia RVS spectra with APOGEE and GALAH labels, GANDALF's arrays, plain arrays, 1-D
files.
"""

from spectangle.archives.continuum import Continuum
from spectangle.archives.download import GaiaDataLink
from spectangle.archives.gaia_files import GaiaFiles
from spectangle.archives.gandalf import Gandalf
from spectangle.archives.miles import Miles
from spectangle.archives.plain import Plain
from spectangle.archives.preparation import LabelSources, prepare
from spectangle.archives.prepared import Prepared
from spectangle.archives.resample import Pixels
from spectangle.archives.sample import Cuts
from spectangle.archives.spectra1d import Spectra1D
from spectangle.archives.spectrum_form import SpectrumForm

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
