"""What an archive is to ``spectangle prepare``: a source of spectra, the project's or one's own.

A config names its class (``archive._target_``); nothing is inherited or registered. Every source has the members of
:class:`Source`; one that has those of another protocol here as well is asked for them.

Shapes: n spectra, P pixels, m stars that are wanted, k stars of the survey.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from spectangle.archives.labels.label_table import LabelTable
from spectangle.archives.spectra.chunk import SpectraChunk
from spectangle.archives.spectra.resample import Pixels
from spectangle.archives.tables.bad_rows import BadRows
from spectangle.errors import SpectangleError

__all__ = [
    "BringsLabels",
    "Cited",
    "Downloads",
    "ExplainsLeftOut",
    "FitsPixels",
    "NamesStars",
    "ScalesToMedian",
    "Source",
    "check_source",
    "groups_of",
]

NEEDED = ("work", "read", "labels", "origin", "release")
ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")  # in the text of an object that says nothing of its settings


class Source(Protocol):
    """A source of spectra; make it a frozen dataclass whose fields are the keys of ``archive`` in the config.

    It is sent to the processes that read (``workers``), so it and all it holds must be picklable. Its ``repr``, with
    all settings in it, is part of the name of what an interrupted run left: with other settings nothing of it is used.

    What is wrong with the input is a :class:`~spectangle.errors.SpectangleError`, a sentence that says what came, what
    was expected and what to do; it ends the run. What may be skipped is told to ``bad``
    (:class:`~spectangle.archives.tables.bad_rows.BadRows`), which counts it and refuses more than ``max_bad_rows``.
    """

    @property
    def origin(self) -> str:
        """Where the spectra come from, such as ``Gaia DR3 RVS``; kept in the survey."""
        ...

    @property
    def release(self) -> str:
        """The data release, kept in the survey; ``unknown`` where there is none."""
        ...

    def work(self) -> list[list[Path]]:
        """All files, in groups. A group is the work of one process at a time, and what an interrupted run goes on
        with: some tens of MB or some dozens of files.

        Raises:
            SpectangleError: There is no file.
        """
        ...

    def read(self, path: Path, bad: BadRows, wanted: np.ndarray | None = None) -> Iterator[SpectraChunk]:
        """Yield the wanted stars of one file of :meth:`work`, some thousand at a time: normalised flux and its error
        [n, P], NaN where masked, on wavelengths [P] in nm in vacuum, the star at rest, and ids [n] int64.

        Nobody tells Angstrom from nm here. Cuts, the survey's pixels, and a second spectrum of a star are no matter of
        the source; spectra on different grids need ``pixels.method=resample``.

        Arguments:
            path: The file.
            bad: Is told the ids of all rows that are read, wanted or not (``bad.note(ids)``), and of rows that cannot
                be used (``bad.skip(path, row, reason)``).
            wanted: Sorted ids [m] int64 of the stars that are asked for; None: every star. Others may be yielded, and
                are dropped: looking saves their reading.

        Raises:
            SpectangleError: The file cannot be used.
        """
        ...

    def labels(self, bad: BadRows) -> LabelTable | None:
        """The labels that the archive itself has of its stars; None: they come from ``labels`` of the config, such as
        ``labels.table=stars.csv``. Rows of the table and spectra join by id, in any order.

        Raises:
            SpectangleError: The labels cannot be read.
        """
        ...


@runtime_checkable
class BringsLabels(Protocol):
    """A source that always brings its own labels: an option of ``labels`` that it does not take is refused before
    anything is read. One without this member, whose :meth:`Source.labels` gives a table, takes none.
    """

    @property
    def label_keys(self) -> Mapping[str, str]:
        """{option of ``labels``: what to write instead, ``archive.columns=...``}; ``{"table": "labels.table"}``
        where the config of the archive takes the option from there.
        """
        ...


@runtime_checkable
class Cited(Protocol):
    """A source whose papers are named in the survey's origin."""

    @property
    def cite(self) -> str:
        """The papers."""
        ...


@runtime_checkable
class Downloads(Protocol):
    """A source that gets its files from elsewhere: without any labels ``spectangle prepare`` only downloads. Its
    :meth:`Source.work` gets what is missing as well.
    """

    @property
    def folder(self) -> str:
        """Where the files go."""
        ...

    def download(self) -> list[Path]:
        """Get what is not there yet; return all files."""
        ...


@runtime_checkable
class FitsPixels(Protocol):
    """A source that finds from its files what ``pixels`` leaves open: start, step and number of ``method=resample``."""

    def fit_pixels(self, pixels: Pixels, wanted: np.ndarray | None) -> Pixels:
        """The pixels of the survey, for the wanted ids [m] (None: every star)."""
        ...


@runtime_checkable
class NamesStars(Protocol):
    """A source whose stars have names. They are kept for those without labels, where the table of labels has the
    column ``name``.
    """

    @property
    def star_names(self) -> Mapping[int, str]:
        """Names by id."""
        ...


@runtime_checkable
class ScalesToMedian(Protocol):
    """A source some of whose spectra are scaled to their median instead of a continuum, and do not say so, as Gaia's:
    the survey says which seem to be. Of other spectra a median of 1 says nothing.
    """

    @property
    def scales_to_median(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class ExplainsLeftOut(Protocol):
    """A source that says of its files why they are not in the survey."""

    def left_out(self, chosen: np.ndarray, made: np.ndarray) -> list[str]:
        """A sentence for each file that is not used.

        Arguments:
            chosen: Ids [m] of the stars that the cuts on labels left.
            made: Ids [k] in the survey.
        """
        ...


def check_source(archive: object) -> None:
    """Refuse what is no :class:`Source`, before anything is read.

    Raises:
        SpectangleError: A member is missing, or the ``repr`` does not say the settings.
    """
    name = f"The archive {type(archive).__name__}"
    if missing := [member for member in NEEDED if not hasattr(archive, member)]:
        raise SpectangleError(
            f"{name} has no {' and no '.join(missing)}; a source of spectra has {', '.join(NEEDED)} "
            "(spectangle.archives.Source says what each is)."
        )
    if found := ADDRESS.search(repr(archive)):
        raise SpectangleError(
            f"{name} shows itself as '{found[0]}', which tells no settings, so that an interrupted run could go on "
            "with other ones. Make the class a dataclass: @dataclass(frozen=True)."
        )


def groups_of(source: Source) -> Sequence[Sequence[Path]]:
    """The groups of files of a source, none of them empty.

    Raises:
        SpectangleError: There is no file, or something else than paths.
    """
    name, groups = f"The archive {type(source).__name__}", [group for group in source.work() if group]
    if not groups:
        raise SpectangleError(f"{name} finds no file of spectra; look at the folder or the files that it was given.")
    if wrong := [path for group in groups for path in group if not isinstance(path, Path)]:
        raise SpectangleError(f"{name}: work() gave {wrong[0]!r}; lists of lists of pathlib.Path were expected.")
    return groups
