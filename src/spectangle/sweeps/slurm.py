"""SLURM workers: the batch script of one worker, submitted as a job array. The workers share the study in the sweep
folder.
"""

import os
import shlex
import shutil
import subprocess
import sys
from typing import Any

from omegaconf import DictConfig, OmegaConf

from spectangle.configs.arguments import quoted
from spectangle.configs.targets import OWN
from spectangle.console import console
from spectangle.errors import SpectangleError
from spectangle.files import redacted, write_beside
from spectangle.runs.environment import command_again
from spectangle.sweeps.plan import Plan

__all__ = ["sbatch_options", "submit_workers", "worker_script"]

# a time limit that comes while the worker still imports would end it, unseen: it waits until the worker listens
HOLDING = (
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
OF_OWN_CLASSES = (OWN, "PYTHONPATH")  # the script is also submitted from shells that do not have them


def submit_workers(plan: Plan, options: DictConfig) -> str:
    """Submit the workers of a sweep and return the job's number.

    Raises:
        SpectangleError: There is no SLURM here, or it refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise SpectangleError(
            "hydra/launcher=slurm_workers needs SLURM's sbatch, which is not on this machine; log in to the "
            "cluster first."
        )
    script = plan.folder / "slurm" / "worker.sbatch"
    text = worker_script(plan, OmegaConf.to_container(options, resolve=True), sys.argv)  # pyright: ignore
    write_beside(script, text)
    if redacted(text) != text:
        script.chmod(0o600)  # it holds the password of the storage
    inherited = (
        "SLURM_JOB",
        "SLURM_ARRAY",
        "SLURM_CPUS",
        "SLURM_NTASKS",
        "SLURM_MEM",
    )  # of a job that submits from inside
    environment = {key: value for key, value in os.environ.items() if not key.startswith(inherited)}
    environment.pop("HYDRA_FULL_ERROR", None)  # set by our own command line
    answer = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, env=environment)
    if answer.returncode:
        raise SpectangleError(f"sbatch refused {script}: {answer.stderr.strip()}")
    job = answer.stdout.strip().split(";")[0]
    folder = shlex.quote(f"sweep={plan.folder}")
    for line in (
        f"job {job}: {options.workers} workers for {plan.n_trials} configurations in {plan.folder}",
        f"  watch          squeue -j {job}; spectangle report {folder}",
        f"  more workers   sbatch {shlex.quote(str(script))}",
        f"  stop           scancel {job}  (a new sbatch goes on)",
    ):
        console.print(line, markup=False)
    return job


def worker_script(plan: Plan, options: dict[str, Any], command: list[str]) -> str:
    """The script: the command that was given, as one worker of the array.

    Arguments:
        plan: The sweep.
        options: Keys of ``conf/hydra/launcher/slurm_workers.yaml``.
        command: The command line of the sweep.
    """
    dropped = (
        "hydra/launcher=",
        "hydra.launcher.",
        "hydra.sweeper.workers=",
        "hydra.sweep.dir=",
        "hydra.sweeper.rerun=",
    )
    arguments = [argument for argument in command[1:] if not argument.startswith(dropped)]
    arguments += ["hydra/launcher=basic", "hydra.sweeper.workers=1", f"hydra.sweep.dir={quoted(str(plan.folder))}"]
    lines = [f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in sbatch_options(options).items()]
    names = {"job-name": plan.folder.name, "output": f"{str(plan.folder).replace('%', '%%')}/slurm/%A_%a.log"}
    lines += [
        f"#SBATCH --array=1-{options['workers']}",
        f"#SBATCH --signal=B:USR1@{options['signal_s']}",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
    ]
    lines += [f"#SBATCH --{key}={shlex.quote(value)}" for key, value in names.items()]
    program = shlex.join(command_again([command[0], *arguments]))
    run = [
        f"cd {shlex.quote(os.getcwd())}",
        *(f"export {name}={shlex.quote(os.environ[name])}" for name in OF_OWN_CLASSES if name in os.environ),
        *options["setup"],
        f"exec {shlex.join([sys.executable, '-c', HOLDING])} {program}  # exec: SLURM signals the worker itself",
    ]
    return "\n".join(["#!/bin/bash", *lines, "", *run]) + "\n"


def sbatch_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options of sbatch for our plain keys."""
    found = {
        "partition": options["partition"],
        "account": options["account"],
        "time": options["time_min"],
        "cpus-per-task": options["cpus"],
    }
    found |= {"mem": f"{options['memory_gb']}G" if options["memory_gb"] else None, "gpus": options["gpus"] or None}
    return {key: value for key, value in (found | (options["extra"] or {})).items() if value is not None}
