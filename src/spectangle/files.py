"""Files: never written over by accident, whole or not at all, made once by many processes, and without passwords."""

import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from glob import escape
from pathlib import Path, PurePath
from tempfile import TemporaryFile

from filelock import FileLock, Timeout

from spectangle.errors import SpectangleError

__all__ = [
    "check_folder",
    "made_once",
    "redacted",
    "refuse_existing",
    "refuse_input",
    "remove_leftovers",
    "whole_file",
    "write_beside",
]

LEFT_S = 86400.0  # a part that is so old is nobody's
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


def refuse_input(out: Path, inputs: Iterable[str | Path | None]) -> None:
    """Refuse an output that is also read, whatever may be replaced: it would destroy the input, or, in a folder or
    pattern of inputs, be read as one the next time.

    Arguments:
        out: File to be written.
        inputs: Files, folders (with their sub-folders) and patterns that are read; None is none.

    Raises:
        SpectangleError: The output is one of them, or among them.
    """
    plain = Path(os.path.abspath(out))  # without "..", as patterns are compared by their text
    for read in (Path(os.path.abspath(one)) for one in inputs if one):
        if read.is_dir():
            if read.resolve() in out.resolve().parents:
                raise SpectangleError(
                    f"{out} lies in the folder {read}, whose files are read: it would be read as one of them the next "
                    "time. Write it to another folder."
                )
        elif (out.exists() and read.exists() and out.samefile(read)) or plain == read:
            raise SpectangleError(f"{out} is read and would be written over; choose another name for the output.")
        elif not read.exists() and _matches(plain, str(read)):
            raise SpectangleError(
                f"{out} is among the files that are read, {read}: choose another name or folder for the output."
            )


def _matches(path: PurePath, pattern: str) -> bool:
    return fnmatch(str(path), pattern) if "**" in pattern else path.match(pattern)


def check_folder(path: Path) -> None:
    """Check that a file can be written, before hours of work; its folder is made if need be.

    Raises:
        SpectangleError: The folder cannot be made, or nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise SpectangleError(f"{path} cannot be written ({error.strerror}); choose another folder.") from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name beside a file's to write to, and rename it when the block ends well: what has the file's name is
    whole.

    The folder is made if need be; a block that fails or is interrupted leaves nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")  # workers of a sweep may write the same file
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left beside a file that :func:`whole_file` writes: parts that nobody has written to
    for a day.
    """
    for part in path.parent.glob(f"{escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        with suppress(OSError):  # another process may have removed it, or it is somebody else's
            if time.time() - part.stat().st_mtime > LEFT_S:
                part.unlink()


def write_beside(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        SpectangleError: It cannot be written.
    """
    try:
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpectangleError(
            f"{path} could not be written ({error}); free some space or choose another folder."
        ) from error


@contextmanager
def made_once(path: Path, whole: Callable[[Path], bool] = Path.exists, wait: bool = True) -> Iterator[bool]:
    """Yield whether a file is still to be made, while no other process makes it: what runs share is computed once.

    Where no lock can be had (the file system knows none, or the folder is somebody else's), several may make it; each
    must write it beside and rename it.

    Arguments:
        path: The file.
        whole: Whether it is there, and is what it should be.
        wait: Whether to wait for a process that makes it.

    Raises:
        Timeout: Another process makes it, and nobody is to wait.
    """
    lock = None if whole(path) else FileLock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if lock is not None:
            lock.acquire(blocking=wait)
    except Timeout:  # it is an OSError as well
        raise
    except (NotImplementedError, OSError):
        lock = None
    try:
        yield not whole(path)
    finally:
        if lock is not None:
            lock.release()
