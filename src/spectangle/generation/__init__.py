"""Spectra with changed labels (paper, Fig. 2): ``generate`` writes them for ``parents`` by ``label_changes``,
``check`` holds ``swaps`` against the truth of the embedded survey.
"""
