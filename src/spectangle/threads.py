"""How many CPU threads to use, and what they do while they wait."""

import os
from typing import Any

__all__ = ["available_cores", "cores", "let_threads_sleep", "use_threads"]

# Turns of the loop in which a waiting thread of libgomp looks for work before it sleeps. By default 300,000, some
# milliseconds: where another process wants the core, two trainings took twenty times as long as one. 5,000 turns are
# longer than the pauses inside a batch, so that a quiet machine loses nothing: with 500, training on a virtual Intel
# machine, where a thread is slow to wake, took 1.4 times as long. benchmarks/shared_cores.py measures all of it.
SPIN = 5000
_limits: Any = None


def let_threads_sleep() -> None:
    """Let waiting OpenMP threads leave the core to others; call it before torch is imported, which reads the
    environment once.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN)


def use_threads(count: int | None = None) -> None:
    """Let torch, BLAS and scikit-learn use so many threads; None = all that this process may use.

    This thread and those that begin after it take numbers that are too small for full precision, in single precision
    below 1e-38, for zero; numpy's own BLAS, whose threads are there since numpy was imported, does not.
    """
    import torch
    from threadpoolctl import threadpool_limits

    global _limits
    count = count or available_cores()
    torch.set_num_threads(count)
    # What Adam remembers of a unit that has died fades to the smallest numbers there are and stays there; an operation
    # on one of these takes a processor ten times as long.
    torch.set_flush_denormal(True)
    _limits = threadpool_limits(count)  # a worker's libraries were loaded with all cores, before it knew its share


def available_cores() -> int:
    """Cores for this process: what a sweep or the user gives it (``4``, or OpenMP's list for nested levels, ``4,1``),
    else :func:`cores`.
    """
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(given or cores())


def cores() -> int:
    """Cores of the SLURM allocation, of the affinity mask, or of the machine."""
    if slurm := os.environ.get("SLURM_CPUS_PER_TASK"):
        return int(slurm)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
