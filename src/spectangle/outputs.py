"""What commands write: never over a file by accident, and whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spectangle.errors import SpectangleError

__all__ = ["refuse_existing", "whole_file"]


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
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
