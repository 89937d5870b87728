"""Where a study is kept: a journal in the sweep folder that repairs itself, or a database whose password stays out of
files.
"""

import importlib.util
import json
import logging
import os
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from spectangle.errors import SpectangleError
from spectangle.files import redacted

__all__ = ["Journal", "open_storage"]

log = logging.getLogger(__name__)
GRACE_S = 10  # a lock whose holder died is broken after this


class Journal(JournalFileBackend):
    """Optuna's journal, where a line that was written halfway (a full disk, a killed process) does not stay.

    What a cut loses is known to the runs' own files.

    Arguments:
        path: The file, ``study.log``.
    """

    def __init__(self, path: Path):
        self._path, self._journal_lock = path, JournalFileOpenLock(str(path), grace_period=GRACE_S)
        super().__init__(str(path), self._journal_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs).encode()
        self._journal_lock.acquire()
        try:
            size = _whole_size(self._path)
            os.truncate(self._path, size)
            try:
                with open(self._path, "ab") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                os.truncate(self._path, size)
                raise SpectangleError(
                    f"{self._path} could not be written ({error.strerror}); free some space: the same command goes on."
                ) from error
        finally:
            self._journal_lock.release()

    def repair(self) -> None:
        """Cut the file before its first line that is none."""
        if not self._path.is_file():
            return
        good = 0
        with open(self._path, "rb") as file:
            for line in file:
                if not _is_whole(line):
                    break
                good += len(line)
            else:
                return
        lost = self._path.stat().st_size - good
        self._journal_lock.acquire()
        try:
            os.truncate(self._path, good)
        finally:
            self._journal_lock.release()
        log.warning(
            "%s was damaged (a full disk?): its last %d bytes are cut off; what the runs wrote themselves is kept.",
            self._path,
            lost,
        )


def open_storage(url: str | None, folder: Path, repair: bool = True) -> optuna.storages.BaseStorage:
    """Optuna's storage: a journal in the sweep folder, which is repaired unless it is only looked at, or a database.

    Raises:
        SpectangleError: The database or its driver is not there.
    """
    if url is None:
        journal = Journal(folder / "study.log")
        if repair:
            journal.repair()
        return optuna.storages.JournalStorage(journal)
    from sqlalchemy.pool import NullPool

    options: dict[str, Any] = {"poolclass": NullPool}  # workers are forked: no connection may be shared
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 60}
    try:
        return optuna.storages.RDBStorage(_with_driver(url), engine_kwargs=options)
    except SpectangleError:
        raise
    except Exception as error:
        reason = redacted(str(error)).strip().splitlines()[0].rstrip(".")
        raise SpectangleError(
            f"The storage {redacted(url)} could not be opened ({reason}); give a URL that Optuna knows, or leave "
            "sweep.storage out."
        ) from error


def _with_driver(url: str) -> str:
    """``postgresql://`` with the driver that is installed; SQLAlchemy would ask for psycopg2."""
    if not url.startswith(("postgresql://", "postgres://")):
        return url
    driver = next((name for name in ("psycopg", "psycopg2", "pg8000") if importlib.util.find_spec(name)), None)
    if driver is None:
        raise SpectangleError(
            f"The storage {redacted(url)} needs a driver for PostgreSQL, which is not installed: pip install "
            "'spectangle[postgres]' (psycopg)."
        )
    return f"postgresql+{driver}://{url.partition('://')[2]}"


def _whole_size(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        end = size
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                return start + found + 1
            end = start
    return 0


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
