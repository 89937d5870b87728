"""What is written: never over a file by accident, whole or not at all, and without passwords."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spectangle.errors import SpectangleError

__all__ = ["redacted", "refuse_existing", "whole_file", "write_beside"]

PASSWORD = re.compile(r"(\w://[^/\s:@]*):[^/\s@]+@")


def redacted(text: str) -> str:
    """Text without the passwords of its URLs."""
    return PASSWORD.sub(r"\1:***@", text)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse an output that is there, unless it may be replaced.

    Raises:
        SpectangleError: It is there.
    """
    if path.exists() and not overwrite:
        raise SpectangleError(f"{path} exists already; choose another name, or say overwrite=true.")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name beside a file's to write to, and rename it when the block ends well: what has the file's name is whole.

    The folder is made if need be; a block that fails or is interrupted leaves nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")  # workers of a sweep may write the same file
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_beside(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        SpectangleError: It cannot be written.
    """
    try:
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpectangleError(f"{path} could not be written ({error}); free some space or choose another folder.") from error
