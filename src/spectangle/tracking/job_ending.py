"""How a job ended, in one word that every dashboard shows."""

from spectangle.runs.sweep_link import Pruned

__all__ = ["ending"]


def ending(error: BaseException | None) -> str:
    """``finished``, ``pruned``, ``interrupted`` (Ctrl-C, or a time limit after which SLURM starts it again) or
    ``failed``.
    """
    if error is None:
        return "finished"
    if isinstance(error, Pruned):
        return "pruned"
    return "failed" if isinstance(error, Exception) else "interrupted"
