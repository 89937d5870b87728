"""Where a study is kept, and the lock that its critical sections take."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from spectangle.errors import SpectangleError

__all__ = ["alone", "open_storage"]

log = logging.getLogger(__name__)
GRACE_S = 10  # a lock whose holder died is broken after this


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a sweep folder: it works on NFS, and outlives its holder by a few seconds only."""
    lock = JournalFileOpenLock(str(folder / "study"), grace_period=GRACE_S)
    lock.acquire()
    try:
        yield
    finally:
        try:
            lock.release()
        except RuntimeError:
            log.warning("the lock of %s was broken by another worker: this one was held up for more than %d s", folder, GRACE_S)


def open_storage(url: str | None, folder: Path) -> optuna.storages.BaseStorage:
    """Optuna's storage: a journal in the sweep folder, or a database."""
    if url is None:
        path = str(folder / "study.log")
        return optuna.storages.JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path, grace_period=GRACE_S)))
    from sqlalchemy.pool import NullPool

    options: dict[str, Any] = {"poolclass": NullPool}  # workers are forked: no connection may be shared
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 60}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except Exception as error:
        raise SpectangleError(
            f"The storage {url} could not be opened ({error}); give a URL that Optuna knows, or leave sweep.storage out."
        ) from error
