"""Table 1 of the paper: ``collect`` its numbers from runs, add ``baselines``, ``layout`` them, give them as ``text``
and ``figures``; ``print`` is all of it.
"""
