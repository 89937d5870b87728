"""Hydra plugin: sweeps that survive. The work is done in :mod:`spectangle.sweeps`."""
