r"""The embedded survey: LTE spectra of the Gaia RVS window, their emulator, and a population of stars to observe.

From the physics up: :mod:`~spectangle.synthetic.elements`, :mod:`~spectangle.synthetic.gas`,
:mod:`~spectangle.synthetic.continuous_opacity`, :mod:`~spectangle.synthetic.atmosphere`,
:mod:`~spectangle.synthetic.lines` and
:mod:`~spectangle.synthetic.hydrogen` make :func:`synthesise`; :func:`emulate` is its fast stand-in;
:mod:`~spectangle.synthetic.population` and :mod:`~spectangle.synthetic.observation` make stars and what is seen of
them;
:func:`write_survey` writes them to a survey file.
"""

from spectangle.synthetic.embedded import PAPER_SIZE, fingerprint, write_survey
from spectangle.synthetic.emulator import emulate
from spectangle.synthetic.population import LABELS, LIMITS
from spectangle.synthetic.synthesis import WAVELENGTH, synthesise

__all__ = ["LABELS", "LIMITS", "PAPER_SIZE", "WAVELENGTH", "emulate", "fingerprint", "synthesise", "write_survey"]
