"""Rows of the archive's files: how many were read, and the bad ones, named, counted, skipped up to a limit, then
refused.
"""

from pathlib import Path

from spectangle.errors import SpectangleError

__all__ = ["BadRows"]

KEPT_SENTENCES = 1000


class BadRows:
    """Count the rows that were read and those that were skipped, and keep word of what was not used for no fault of its
    own.

    Arguments:
        limit: How many rows may be skipped; the next one is refused.
        keys: Where the command has the archive's keys, for sentences: ``archive.`` in spectangle prepare.

    Attributes:
        read: Rows read so far, wanted or not.
        example_id: A source_id among them, for sentences.
        count: Rows skipped so far.
        sentences: What was wrong with each (the first 1000).
        unused: Sentences on files, parts of files and rows that are no spectra or labels, and do not count as bad.
    """

    def __init__(self, limit: int = 0, keys: str = "archive."):
        self.limit, self.keys = limit, keys
        self.read = 0
        self.example_id = 0
        self.count = 0
        self.sentences: list[str] = []
        self.unused: list[str] = []

    @property
    def other_columns(self) -> str:
        """What to do where a file lacks a column, with {} for its key: see :func:`columns.require_columns`."""
        return f"{self.keys}columns.{{}}=... If it holds no spectra, take it out of the folder."

    def note(self, ids) -> None:
        """Note that rows with these ids [n] were read."""
        self.read += len(ids)
        if len(ids):
            self.example_id = int(ids[0])

    def skip(self, path: str | Path, row: int, reason: str) -> None:
        """Note that a row (1 = the first star or line after the header) of a file is skipped, and why.

        Raises:
            SpectangleError: More rows than the limit.
        """
        self.add(1, [f"{path}, row {row}: {reason}"])

    def leave_out(self, sentence: str) -> None:
        """Note that something is not used, and why; no fault is counted."""
        self.unused.append(sentence)

    def add(self, count: int, sentences: list[str]) -> None:
        """Add the bad rows that another process counted; refuse when they are too many in all."""
        self.count += count
        self.sentences = (self.sentences + sentences)[:KEPT_SENTENCES]
        if self.count > self.limit:
            last = sentences[-1] if sentences else "rows of a file could not be used"
            raise SpectangleError(
                f"{last}. That makes {self.count} bad row(s), and max_bad_rows={self.limit} allows no more: "
                "mend the file or download it again, or raise max_bad_rows to skip such rows."
            )
