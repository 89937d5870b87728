"""Spectra with changed labels (paper, Fig. 2): ``generate`` writes them, ``check`` holds them against the truth of the
embedded survey.
"""
