"""Stars that have names instead of Gaia ids: a stable id of each name, and names that compare whatever their
spelling.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from spectangle.errors import SpectangleError

__all__ = ["name_id", "name_ids", "name_key", "refuse_duplicates"]


def name_key(name: object) -> str:
    """What is compared of a name: no blanks, upper case, no zeros before a number; 'HD 4628' and 'hd4628' are one star,
    and '0012' and 12.
    """
    text = "".join((name.decode() if isinstance(name, bytes) else str(name)).split()).upper()
    return text.lstrip("0") or "0" if text.isdigit() else text


def name_id(name: object) -> int:
    """The id of a name: the first 63 bits of the SHA-256 of its :func:`name_key`; the same on every machine and for
    ever.

    63 bits, because ids are int64. Among 100,000 names two share an id with probability 5e-10.
    """
    return int.from_bytes(hashlib.sha256(name_key(name).encode()).digest()[:8], "big") >> 1


def name_ids(names: Sequence[object], where: str) -> np.ndarray:
    """Ids [n] int64 of names [n].

    Raises:
        SpectangleError: A name is empty, comes twice, or two names share an id.
    """
    ids = [name_id(name) for name in names]
    refuse_duplicates(names, ids, where)
    return np.array(ids, dtype=np.int64)


def refuse_duplicates(names: Sequence[object], ids: Iterable[int], where: str) -> None:
    """Refuse names [n] that are empty, and two of one id [n]."""
    seen: dict[int, int] = {}
    for row, (name, number) in enumerate(zip(names, ids, strict=True), 1):
        if not name_key(name):
            raise SpectangleError(f"{where}, row {row}: the star has no name; a name or an id was expected.")
        if number in seen:
            first = seen[number]
            same = name_key(names[first - 1]) == name_key(name)
            why = (
                "keep one row per star"
                if same
                else "rename one of them: their ids, which are hashes of the names, collide"
            )
            raise SpectangleError(
                f"{where}: star '{names[first - 1]}' of row {first} and star '{name}' of row {row} have the same "
                f"id; {why}."
            )
        seen[number] = row
