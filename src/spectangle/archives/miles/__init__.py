"""The MILES library of real stars: its files and its table of parameters."""
