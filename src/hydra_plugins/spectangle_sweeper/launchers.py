"""Launchers for SLURM: batches of jobs through submitit, and an array of workers that need no login-node process."""

from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

__all__ = ["SlurmBatches", "SlurmWorkers"]


class SlurmBatches(Launcher):
    """Submit each batch of runs as one job array through submitit; a job that dies hard is one failed run.

    Works with any sweeper. Arguments: the keys of ``conf/hydra/launcher/slurm.yaml``.
    """

    def __init__(self, **options: Any):
        self.options = options
        self.on_submit: Callable[[int, str], None] | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from spectangle.sweeps.submitted import launch

        return launch(
            self.options, self.context, self.task_function, self.config, job_overrides, initial_job_idx, self.on_submit
        )


class SlurmWorkers(Launcher):
    """Mark a sweep for an array of SLURM workers; the sweeper submits it and returns. Only for
    ``hydra/sweeper=spectangle``.

    Arguments: the keys of ``conf/hydra/launcher/slurm_workers.yaml``.
    """

    def __init__(self, **options: Any):
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None: ...

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from spectangle.errors import SpectangleError

        raise SpectangleError(
            "hydra/launcher=slurm_workers needs hydra/sweeper=spectangle; other sweepers use hydra/launcher=slurm."
        )
