"""How many CPU threads to use."""

import os

__all__ = ["available_cores", "cores", "use_threads"]


def use_threads(count: int | None = None) -> None:
    """Let torch use so many threads; None = all that this process may use."""
    import torch

    torch.set_num_threads(count or available_cores())


def available_cores() -> int:
    """Cores for this process: what a sweep or the user gives it, else :func:`cores`."""
    return int(os.environ.get("OMP_NUM_THREADS") or cores())


def cores() -> int:
    """Cores of the SLURM allocation, of the affinity mask, or of the machine."""
    if slurm := os.environ.get("SLURM_CPUS_PER_TASK"):
        return int(slurm)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
