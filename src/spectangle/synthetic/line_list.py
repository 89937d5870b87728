"""A list of atomic lines, one array per property.

Shapes: L lines.
"""

from dataclasses import dataclass

import numpy as np

from spectangle.synthetic.elements import INDEX

__all__ = ["LineList"]


@dataclass(frozen=True)
class LineList:
    """Hold atomic lines, one array [L] per property.

    Attributes:
        wavelength: air, Angstrom
        element, ion: place in the table of elements; 0 neutral, 1 singly ionised
        excitation: energy of the lower level, eV
        log_gf: weighted oscillator strength
    """

    wavelength: np.ndarray
    element: np.ndarray
    ion: np.ndarray
    excitation: np.ndarray
    log_gf: np.ndarray

    def __len__(self) -> int:
        return len(self.wavelength)

    def take(self, which: np.ndarray) -> "LineList":
        """Return the chosen lines."""
        return LineList(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    @property
    def calcium_triplet(self) -> np.ndarray:
        """True for the three lines of Ca II at 8498, 8542 and 8662 Angstrom, bool [L]."""
        return (self.element == INDEX["Ca"]) & (self.ion == 1) & (self.log_gf > -1.4)
