"""MD5 sums: the archive's `_MD5SUM.txt`, checked when it lies beside the files."""

import hashlib
from functools import lru_cache
from pathlib import Path

from spectangle.errors import SpectangleError

__all__ = ["MD5_SUMS", "verify_md5"]

MD5_SUMS = "_MD5SUM.txt"


def verify_md5(path: Path, sums: str = MD5_SUMS) -> bool:
    """Compare a file with the sum that the archive published; return False where none was published.

    Raises:
        SpectangleError: The sums differ.
    """
    published = _sums(path.parent / sums).get(path.name)
    if published is None:
        return False
    with path.open("rb") as file:
        actual = _md5(file)
    if actual != published:
        raise SpectangleError(
            f"{path} has MD5 {actual}, and {sums} says {published}: the download is damaged. Download the file again."
        )
    return True


@lru_cache(maxsize=8)
def _sums(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    pairs = (line.split(maxsplit=1) for line in path.read_text().splitlines() if len(line.split()) == 2)
    return {Path(name.strip().lstrip("*")).name: digest.lower() for digest, name in pairs}


def _md5(file) -> str:
    digest = hashlib.md5()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
