"""What a survey tells of a star besides its spectrum and labels: its name, and the classes of a run's attributes."""

import re
from collections.abc import Sequence

import numpy as np

from spectangle.data.stars import class_word
from spectangle.errors import SpectangleError
from spectangle.survey.file import Survey

__all__ = ["find_star", "star_classes", "star_names"]


def find_star(survey: Survey, wanted: str) -> int:
    """Row of the star with some ``source_id`` or, in a survey with a column ``name``, with some name.

    Raises:
        SpectangleError: There is none.
    """
    rows = np.flatnonzero(survey.source_id == int(wanted)) if wanted.isdecimal() else []
    if not len(rows):
        names = star_names(survey, slice(None))
        rows = [row for row, name in enumerate(names) if name and _key(name) == _key(wanted)]
    if not len(rows):
        raise SpectangleError(f"The survey has no star {wanted}.")
    return int(rows[0])


def star_names(survey: Survey, rows: np.ndarray | slice) -> list[str]:
    """Names of some stars; none at all where the survey has no column of words called ``name``."""
    names = survey.column("name") if "name" in survey.columns else np.empty(0)
    return [class_word(name) for name in names[rows].tolist()] if names.dtype.kind in "SO" else []


def star_classes(survey: Survey, attributes: Sequence[str], rows: np.ndarray) -> dict[str, list[str]]:
    """Class of each of some stars by attribute; empty where the catalogue has none."""
    known = [name for name in attributes if name in survey.columns]
    return {name: [class_word(value) for value in survey.column(name)[rows].tolist()] for name in known}


def _key(name: str) -> str:
    """What equal names have in common: HD 4 is HD000004. explorer.js has the same."""
    return re.sub(r"(^|\D)0+(?=\d)", r"\1", re.sub(r"\s", "", name.lower()))
