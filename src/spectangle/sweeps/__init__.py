"""Sweeps that survive: resumable, exact, with any number of workers and no controller.

``space`` what is varied, ``plan`` what will be done, ``study`` who runs what, ``worker`` and ``trial`` run it,
``liveness`` tells the dead from the living, ``controller`` starts it all; ``leaderboard`` gathers what was found,
``leaderboard_page`` draws it, ``wandb_summary`` sends it.
"""
