"""The one exception that a user is meant to read."""

__all__ = ["SpectangleError"]


class SpectangleError(Exception):
    """Bad input, said in a sentence: what came, what was expected, what to do.

    The entry points print it without a traceback and exit with a non-zero code.
    """
