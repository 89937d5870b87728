"""Runs as SLURM jobs through submitit, where a job that dies without a word is one failed run and not the end.

submitit asks ``sacct`` whether a job is over; without accounting that never says so. Here the result file of a job, or
its absence after SLURM has forgotten or ended the job, decides.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from spectangle.errors import SpectangleError
from spectangle.sweeps.jobs import ENDED, job_states
from spectangle.sweeps.slurm import sbatch_options
from spectangle.sweeps.submission import check_submission

__all__ = ["launch"]

GRACE_S = 10  # between the end of a job and its result on a slow file system
ASK_S = 5


def launch(
    options: dict[str, Any],
    context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    on_submit: Callable[[int, str], None] | None,
) -> list[JobReturn]:
    """Submit one job for each list of overrides as an array, wait for all, and return what they returned or why not."""
    try:
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
    except ImportError as error:
        raise SpectangleError("hydra/launcher=slurm needs submitit: pip install 'spectangle[slurm]'.") from error
    options = {
        key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value for key, value in options.items()
    }
    folder = Path(str(config.hydra.sweep.dir)).resolve()
    if on_submit is None:  # Hydra's own sweeper; ours has checked the whole sweep
        check_submission(folder, options, len(job_overrides))
    folder.mkdir(parents=True, exist_ok=True)
    job = SlurmLauncher()
    job.setup(hydra_context=context, task_function=task_function, config=config)
    numbers = range(first, first + len(job_overrides))
    jobs = _executor(options, folder).map_array(
        job,
        [list(overrides) for overrides in job_overrides],
        ["hydra.sweep.dir"] * len(numbers),
        list(numbers),
        [f"job_id_for_{number}" for number in numbers],
        [Singleton.get_state()] * len(numbers),
    )
    for index, submitted in enumerate(jobs):
        if on_submit is not None:
            on_submit(index, submitted.job_id)
    return _collect(jobs)


def _executor(options: dict[str, Any], folder: Path) -> Any:
    import submitit

    try:
        executor = submitit.AutoExecutor(
            folder=folder / ".submitit" / "%j", cluster="slurm", slurm_max_num_timeout=options["requeues"]
        )
    except RuntimeError as error:
        raise SpectangleError(
            "hydra/launcher=slurm needs SLURM's srun, which is not on this machine; log in to the cluster first."
        ) from error
    extra = sbatch_options(
        {**options, "partition": None, "account": None, "time_min": None, "cpus": None, "memory_gb": None, "gpus": 0}
    )
    executor.update_parameters(
        timeout_min=options["time_min"],
        cpus_per_task=options["cpus"],
        mem_gb=options["memory_gb"],
        gpus_per_node=options["gpus"] or None,
        name=folder.name,
        slurm_partition=options["partition"],
        slurm_account=options["account"],
        slurm_array_parallelism=options["parallel"],
        slurm_signal_delay_s=options["signal_s"],
        slurm_setup=options["setup"] or None,
        slurm_additional_parameters=extra,
    )
    return executor


def _collect(jobs: Sequence[Any]) -> list[JobReturn]:
    results: dict[str, JobReturn] = {}
    missing: dict[str, float] = {}
    asked = 0.0
    while len(results) < len(jobs):
        waiting = [job for job in jobs if job.job_id not in results]
        for job in waiting:
            if job.paths.result_pickle.exists():
                results[job.job_id] = _result(job)
        if time.monotonic() - asked > ASK_S:
            asked = time.monotonic()
            states = job_states([job.job_id for job in waiting if job.job_id not in results])
            for job in waiting:
                if states.get(job.job_id) not in ENDED:
                    missing.pop(job.job_id, None)
                elif (
                    time.monotonic() - missing.setdefault(job.job_id, time.monotonic()) > GRACE_S
                    and job.job_id not in results
                ):
                    results[job.job_id] = _failed(
                        SpectangleError(
                            f"job {job.job_id} ended ({states[job.job_id]}) without a result; see {job.paths.stderr}"
                        )
                    )
        time.sleep(0.5)
    return [results[job.job_id] for job in jobs]


def _result(job: Any) -> JobReturn:
    try:
        return job.result()
    except Exception as error:  # what the job raised, as submitit wraps it
        return _failed(error)


def _failed(error: Exception) -> JobReturn:
    result = JobReturn()
    result.status = JobStatus.FAILED
    result.return_value = error
    return result
