"""The paper's Table 1: ``collect`` runs, add ``baselines``, lay out (``grids``), write (``printed``, ``text``, ``figures``, ``report``)."""
