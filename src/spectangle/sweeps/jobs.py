"""What SLURM says of jobs, in one question for all of them."""

import shutil
import subprocess
from collections.abc import Sequence

__all__ = ["ENDED", "INTERRUPTED", "job_states"]

INTERRUPTED = (
    "CANCELLED",
    "PREEMPTED",
    "NODE_FAIL",
    "BOOT_FAIL",
    "TIMEOUT",
)  # the job's end, not the fault of what it ran
ENDED = (*INTERRUPTED, "COMPLETED", "FAILED", "OUT_OF_MEMORY", "DEADLINE")
FORMAT = "%A %F_%K %T"  # number, array's number and place, state
PATIENCE_S = 30


def job_states(jobs: Sequence[str]) -> dict[str, str]:
    """States of SLURM jobs; nothing where there is no SLURM. A job that SLURM has forgotten is COMPLETED."""
    if not jobs or shutil.which("squeue") is None:
        return {}
    code, lines, complaint = _ask(jobs)
    if code and "Invalid job id" in complaint:
        if len(jobs) == 1:
            return {jobs[0]: "COMPLETED"}
        return {
            job: state for one in jobs for job, state in job_states([one]).items()
        }  # one forgotten number spoils the question
    if code:
        return dict.fromkeys(jobs, "UNKNOWN")  # the controller does not answer
    found: dict[str, str] = {}
    for line in lines:
        number, array, state = line.split()
        found |= {number: state, array: state}
    return {job: found.get(job, "COMPLETED") for job in jobs}


def _ask(jobs: Sequence[str]) -> tuple[int, list[str], str]:
    command = ["squeue", "-h", "-r", "-t", "all", "-j", ",".join(jobs), "-o", FORMAT]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return 1, [], "no answer"
    return answer.returncode, answer.stdout.splitlines(), answer.stderr
