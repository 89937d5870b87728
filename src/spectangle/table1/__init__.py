"""The paper's Table 1: ``collect`` runs, add ``baselines``, lay out (``grids``), write (``printed``, ``text``, ``figures``, ``report``).

``frontier`` sets what is kept against what leaks, over the runs of a sweep.
"""
