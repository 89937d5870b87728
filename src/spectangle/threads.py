"""How many CPU threads to use."""

import os

import torch

__all__ = ["available_cores", "use_threads"]


def use_threads(count: int | None = None) -> None:
    """Let torch use so many threads; None = all that this process may use."""
    torch.set_num_threads(count or available_cores())


def available_cores() -> int:
    """Cores that this process may use: what a sweep gives it, the SLURM allocation, the affinity mask, or all."""
    if given := os.environ.get("OMP_NUM_THREADS"):
        return int(given)
    if slurm := os.environ.get("SLURM_CPUS_PER_TASK"):
        return int(slurm)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
