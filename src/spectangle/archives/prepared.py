"""What a preparation made, for those who ask and for the report on the sample."""

from dataclasses import dataclass, field
from pathlib import Path

from spectangle.archives.assemble import Tally
from spectangle.archives.join import Overlap
from spectangle.archives.sample import Funnel
from spectangle.archives.tables.bad_rows import BadRows

__all__ = ["Prepared"]


@dataclass(frozen=True)
class Prepared:
    """What a preparation made: the survey's path, the funnel, the overlaps of catalogues, the counts, the bad rows, the
    files not used.
    """

    survey: Path
    funnel: Funnel
    overlaps: list[Overlap]
    tally: Tally
    bad: BadRows
    left_out: list[str] = field(default_factory=list)
