"""Lines of the Gaia RVS window that pictures mark: the strong ones of Ca II, Fe I, Ti I and Si I.

The strongest of each species in the linemake lists (Placco et al. 2021, RNAAS 5, 92) at the temperature of a cool star,
converted from air to vacuum (Birch and Downs 1994, Metrologia 31, 315).
"""

__all__ = ["COLOURS", "LINES"]

# species, vacuum wavelength in nm, what it responds to
_CALCIUM = "the calcium triplet: temperature, gravity, and calcium as an alpha element"
_IRON = "iron: the metallicity"
_TITANIUM = "titanium: cool stars, an alpha element"
_SILICON = "silicon: an alpha element"

LINES = [
    *(("Ca II", wavelength, _CALCIUM) for wavelength in (850.036, 854.444, 866.452)),
    *(("Fe I", wavelength, _IRON) for wavelength in (847.073, 851.641, 858.462, 861.417, 862.397, 867.713, 869.101)),
    *(("Ti I", wavelength, _TITANIUM) for wavelength in (852.069, 855.044, 867.775, 868.537)),
    *(("Si I", wavelength, _SILICON) for wavelength in (852.961, 855.913, 865.084)),
]

COLOURS = {"Ca II": "#b45309", "Fe I": "#475569", "Ti I": "#0e7490", "Si I": "#7e22ce"}
