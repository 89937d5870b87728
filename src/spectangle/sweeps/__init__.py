"""Sweeps that survive: resumable, exact, with any number of workers and no controller.

``space`` what is varied, ``plan`` what will be done, ``study`` who runs what, ``worker`` and ``trial`` run it,
``liveness`` tells the dead from the living, ``run`` starts it all. Nothing is imported here: every run imports
``pruning``.
"""
