"""The one exception that a user is meant to read."""

__all__ = ["SpectangleError", "root_cause"]


class SpectangleError(Exception):
    """Bad input, said in a sentence: what came, what was expected, what to do.

    The entry points print it without a traceback and exit with a non-zero code.
    """


def root_cause(error: BaseException) -> BaseException:
    """The error that an error was raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
