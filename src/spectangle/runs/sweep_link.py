"""The line from a run to the sweep that started it: at each epoch it reports, and hears whether to stop."""

from multiprocessing.connection import Connection

__all__ = ["Pruned", "link"]


class Pruned(Exception):
    """The sweep has seen enough of this run."""


class _Link:
    """Closed (no pipe) in a run that no sweep prunes; ``claimed`` in one that the study has given to this process
    alone; ``pack``: to the process that trains for this run, if it is one of a pack, whose name is ``pack_name``;
    ``gpu_packs``: whether the sweep trains in packs on a GPU, also where this run is alone: all are measured alike.
    """

    pipe: Connection | None = None
    claimed: bool = False
    pack: Connection | None = None
    pack_name: str = ""
    gpu_packs: bool = False

    def report(self, step: int, value: float) -> bool:
        """Report an objective; return whether to stop."""
        if self.pipe is None:
            return False
        self.pipe.send(("report", step, value))
        return bool(self.pipe.recv())


link = _Link()
