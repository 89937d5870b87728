"""The one exception that a user is meant to read, and what its sentences share."""

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["SpectangleError", "did_you_mean", "refuse_unknown", "root_cause"]


class SpectangleError(Exception):
    """Bad input, said in a sentence: what came, what was expected, what to do.

    The entry points print it without a traceback and exit with a non-zero code.
    """


def root_cause(error: BaseException) -> BaseException:
    """The error that an error was raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """A question that names the nearest of some words, to stand after a full stop; empty if none is near."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


def refuse_unknown(path: str, keys: Iterable[object], known: Iterable[str]) -> None:
    """Refuse keys that nobody would read.

    Arguments:
        path: What they are keys of.
        keys: Those that are there.
        known: Those that are read.

    Raises:
        SpectangleError: Names the first one, and the nearest that there is.
    """
    names = sorted(known)
    for key in keys:
        if key not in names:
            hint = did_you_mean(str(key), names) or (f" There are: {', '.join(names)}." if names else "")
            raise SpectangleError(f"There is no key {path}.{key}: nothing would read it.{hint}")
