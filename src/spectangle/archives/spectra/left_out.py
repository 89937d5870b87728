"""Why a file of the input is not in the survey: each is either used or named with a reason."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Star", "why_left_out"]


@dataclass(frozen=True)
class Star:
    """A star's name and id, and the file that holds its spectrum."""

    file: str
    name: str
    source_id: int


def why_left_out(
    stars: Iterable[Star], in_table: Container[int], chosen: np.ndarray, made: np.ndarray, table: str
) -> Iterator[str]:
    """Yield a sentence for each star whose spectrum is not in the survey.

    Arguments:
        stars: Files of spectra.
        in_table: Ids that the table of labels has.
        chosen: Ids [m] that the cuts on labels left.
        made: Ids [k] in the survey.
        table: Name of the table.
    """
    after_labels, after_spectra = set(chosen.tolist()), set(made.tolist())
    for star in stars:
        if star.source_id in after_spectra:
            continue
        if star.source_id not in in_table:
            yield f"{star.file}: star {star.name} has no row in {table}"
        elif star.source_id not in after_labels:
            yield f"{star.file}: star {star.name} was removed by the cuts on labels"
        else:
            yield f"{star.file}: star {star.name} was removed by the cuts on spectra, or skipped as a bad row"
