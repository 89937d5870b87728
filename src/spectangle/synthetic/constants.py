r"""Physical constants in the units of stellar atmospheres: centimetre, gram, second, kelvin, electronvolt.

Values: CODATA 2018, https://physics.nist.gov/cuu/Constants.
"""

BOLTZMANN = 1.380649e-16  # erg / K
SPEED_OF_LIGHT = 2.99792458e10  # cm / s
SPEED_OF_LIGHT_KMS = 299_792.458  # km / s
ATOMIC_MASS = 1.66054e-24  # g
KELVIN_PER_EV = 11_604.52  # 1 eV / k
SECOND_RADIATION = 1.43878  # h c / k, cm K
THOMSON = 6.652e-25  # cm^2
LINE_CROSS_SECTION = 0.02654  # pi e^2 / (m_e c), cm^2 Hz
SAHA = 2.4147e15  # (2 pi m_e k / h^2)^(3/2), cm^-3 K^(-3/2)
RYDBERG = 109_677.58  # of hydrogen, cm^-1
SQRT_PI = 1.7724538509055159
WINDOW_ANGSTROM = 8580.0  # middle of the RVS window: continuum, Planck function and stimulated emission are taken here
