"""What a sweep found: ``leaderboard`` gathers it, ``page`` draws it, ``make`` is behind ``spectangle report``."""
