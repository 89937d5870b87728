"""Nested configs as one level of dotted keys."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["differing", "flat"]


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config as one level of dotted keys."""
    if isinstance(node, Mapping) and node:
        return {
            key: value
            for name, child in node.items()
            for key, value in flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
        }
    return {prefix: node}


def differing(columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that do not have one value in all columns, in the order in which they are first seen; a missing key has
    None.
    """
    keys = dict.fromkeys(key for column in columns for key in column)
    return [key for key in keys if any(column.get(key) != columns[0].get(key) for column in columns)]
