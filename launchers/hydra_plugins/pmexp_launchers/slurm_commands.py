"""Runs SLURM's own commands. None needs accounting but `sacct`, which may be missing."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from pmexp.errors import UserError

_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class QueuedJob:
    """Holds what SLURM's queue says of a job."""

    state: str  # PENDING, RUNNING, ...
    reason: str  # why it is pending


class SlurmError(UserError):
    """A command of SLURM failed; the message is its own, in one line."""


def require() -> None:
    """Raises UserError where this machine cannot submit."""
    for name in ("sbatch", "srun", "squeue", "scontrol"):
        if shutil.which(name) is None:
            raise UserError(
                f"hydra/launcher=slurm: {name} is not in PATH; run the command on a login node of the "
                "cluster, or leave hydra/launcher at local"
            )


def max_array_size() -> int:
    """How many jobs one array may have."""
    limit = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(limit[1])) if limit else 1


def queue() -> dict[str, QueuedJob]:
    """The user's jobs that have not ended, by job id; "12_3" is an element of an array."""
    lines = _run("squeue", "-h", "-r", f"--user={os.getuid()}", "-o", "%i|%T|%r").splitlines()
    fields = [line.split("|", 2) for line in lines]
    return {job: QueuedJob(state, reason) for job, state, reason in fields}


def end_state(job: str) -> str:
    """How SLURM says an ended job ended, as COMPLETED or NODE_FAIL; empty where it does not know any more.

    The controller remembers a job for some minutes (MinJobAge), the accounting for ever.
    """
    try:
        state = re.search(r"\bJobState=(\w+)", _run("scontrol", "--oneliner", "show", "job", job))
        if state:
            return state[1]
    except SlurmError:
        pass
    try:
        words = _run("sacct", "-n", "-X", "-P", "-o", "State", "-j", job).split()
    except SlurmError:
        return ""
    return words[0] if words else ""


def requeue(job: str) -> None:
    """Has SLURM start a job anew. Raises SlurmError where it refuses."""
    _run("scontrol", "requeue", job)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"hydra/launcher=slurm: {command[0]}: {error}") from None
    if done.returncode:
        message = one_line(done.stderr) or f"ended with code {done.returncode}"
        raise SlurmError(f"hydra/launcher=slurm: {command[0]}: {message}")
    return done.stdout


def one_line(text: str) -> str:
    """The lines of a text, each once, as one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))
