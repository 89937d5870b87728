"""A file on the disk that HDF5 writes to and that never fails under it.

HDF5 cannot drop a file that it failed to write: what is left of it in memory ends in a segmentation fault, or hundreds
of lines of traceback, when the program ends. Here a full disk is remembered, the writes that follow are dropped, and
HDF5 closes the file in peace; the error is raised outside of HDF5.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

__all__ = ["DiskFile", "hdf5_to_write"]


class DiskFile(io.RawIOBase):
    """A new file for ``h5py.File(DiskFile(path), "w")``.

    Arguments:
        path: The file; one that is there is written over.

    Raises:
        OSError: It cannot be opened, or another program writes it.
    """

    def __init__(self, path: Path):
        super().__init__()
        self._error: BaseException | None = None
        number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._file = os.fdopen(number, "r+b", buffering=0)
        try:
            _lock(number)
            self._file.truncate(0)
        except BaseException:
            self._file.close()
            raise

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def write(self, content: Any) -> int:
        """Write all of it, or remember why not."""
        rest = memoryview(content)
        try:
            while self._error is None and len(rest):
                rest = rest[self._file.write(rest) :]
        except BaseException as error:  # Ctrl-C as well: HDF5 would take it for a failed write
            self._error = error
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        try:
            self._file.truncate(size)
        except BaseException as error:
            self._error = self._error or error
        return self.tell() if size is None else size

    def check(self) -> None:
        """Raise the first error that a write met; from then on nothing was written.

        Raises:
            OSError: The disk is full, or broken.
        """
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def hdf5_to_write(path: Path) -> Iterator[Any]:
    """Open a new HDF5 file; when the block ends it is closed, and a write that failed is raised.

    Raises:
        OSError: The file could not be written.
    """
    disk = DiskFile(path)
    try:
        with h5py.File(disk, "w") as file:
            yield file
    finally:
        disk.close()
        disk.check()


def _lock(number: int) -> None:
    """Keep other programs from an open file, as HDF5 does with files that it opens itself.

    Raises:
        OSError: Another program has it; in HDF5's words.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows refuses a second program by itself
        return
    if os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() in ("FALSE", "0"):
        return
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(f"unable to lock file, {error.strerror}") from None
    except OSError:  # the disk knows no locks
        pass
