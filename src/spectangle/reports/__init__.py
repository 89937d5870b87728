"""What ``spectangle report`` prints: ``make`` chooses, ``table1``, ``frontier`` and ``folds`` gather and draw; the
leaderboard is in sweeps.
"""
