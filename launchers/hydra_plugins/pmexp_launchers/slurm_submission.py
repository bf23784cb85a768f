"""Submits runs as jobs: those that ask for the same share an array, none longer than the cluster allows."""

import hashlib
import io
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any, TypeVar

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from hydra_plugins.pmexp_launchers.slurm_commands import SlurmError, one_line
from hydra_plugins.pmexp_launchers.slurm_job import SlurmJob
from hydra_plugins.pmexp_launchers.slurm_resources import Resources
from hydra_plugins.pmexp_launchers.submissions import Job, Submissions, array_ids
from pmexp.config import RunConfig
from pmexp.masking import masked
from pmexp.process import stop_signals_waiting
from pmexp.run_folder.files import write_atomically

# Python starts with SIGUSR2 ignored: until submitit has its handler the signal would end it. With
# -P no file of the working folder hides one of Python's own modules.
_PYTHON = f"""sh -c 'trap "" USR2; exec "$@"' sh {shlex.quote(sys.executable)} -P"""
_NO_LIMIT = 10**6
_T = TypeVar("_T")


@dataclass(frozen=True)
class Packing:
    """How runs become jobs."""

    runs_per_job: int  # runs of several processes get a job each
    n_jobs: int  # so many of the runs of one job are executed at a time
    array_parallelism: int | None  # jobs of the sweep at a time


@dataclass(frozen=True)
class Array:
    """Jobs that differ in their runs only."""

    packs: Sequence[Sequence[RunConfig]]  # the runs of each job
    resources: Resources
    packing: Packing

    @property
    def submissions(self) -> Submissions:
        return Submissions(self.packs[0][0].folder.parent)

    def script(self) -> str:
        """What sbatch gets, for a person: without credentials."""
        executor = self._executor(after=None, setup=[masked(line) for line in self.resources.setup])
        if len(self.packs) > 1:
            executor.parameters["map_count"] = len(self.packs)
        return str(executor._make_submission_file_text(executor._submitit_command_str, ""))

    def submit(self, after: str | None) -> list[Job]:
        """Submits and records it. `after`: the id of an array that has to end before.

        Raises SlurmError with what sbatch says against it.
        """
        calls = [
            SlurmJob([run.to_dict() for run in pack], self.packing.n_jobs, self.resources.time_min)
            for pack in self.packs
        ]
        try:
            executor = self._executor(after, self._setup())
            # A signal between the two would leave jobs that are on no record, and the next command would
            # submit their runs once more. What submitit raises it also prints.
            with stop_signals_waiting(), redirect_stderr(io.StringIO()):
                submitted = executor.submit_array(calls)
                jobs = [
                    Job(job.job_id, tuple(run.run_id for run in pack), self.submissions.folder)
                    for job, pack in zip(submitted, self.packs, strict=True)
                ]
                self.submissions.add(jobs)
        except (FailedJobError, FailedSubmissionError) as error:
            raise SlurmError(f"hydra/launcher=slurm: {one_line(str(error))}") from None
        return jobs

    def _setup(self) -> list[str]:
        """The job's lines before the run; with a credential in them a line that reads them from a file of the
        user alone: SLURM keeps the script, and may show it to others (`scontrol`, `sacct --batch-script`)."""
        lines = self.resources.setup
        if [masked(line) for line in lines] == lines:
            return lines
        text = "\n".join(lines) + "\n"
        name = f"setup-{hashlib.sha256(text.encode()).hexdigest()[:12]}.sh"
        file = (self.submissions.folder / name).absolute()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text, private=True)
        return [f". {shlex.quote(str(file))}"]

    def _executor(self, after: str | None, setup: list[str]) -> Any:
        # The job counts its starts itself; submitit's limit must not be the one that ends it.
        executor = SlurmExecutor(self.submissions.folder, max_num_timeout=_NO_LIMIT, python=_PYTHON)
        executor.update_parameters(
            **self.resources.parameters(self.packs[0][0].system) | {"setup": setup or None},
            job_name=f"pmexp-{self.packs[0][0].name}",
            array_parallelism=self.packing.array_parallelism or len(self.packs),
            dependency=f"afterany:{after}" if after else None,
        )
        return executor


def arrays_of(
    runs: Sequence[RunConfig],
    resources_of: Callable[[RunConfig], Resources],
    packing: Packing,
    max_array_size: int,
) -> list[Array]:
    """Makes the arrays that execute `runs`. Raises UserError where processes and nodes do not fit."""
    alike: dict[Any, list[RunConfig]] = {}
    for run in runs:
        resources = resources_of(run)
        asked = repr(resources.parameters(run.system))
        alike.setdefault((run.name, run.runs_dir, asked, run.system.processes), []).append(run)
    arrays = []
    for group in alike.values():
        size = packing.runs_per_job if group[0].system.processes == 1 else 1
        packs = _cut(group, size)
        arrays += [Array(part, resources_of(group[0]), packing) for part in _cut(packs, max_array_size)]
    return arrays


def submit(arrays: Sequence[Array]) -> list[Job]:
    """Submits them all, one after the other's end where only so many jobs may run at a time.

    Raises SlurmError where one is refused, and names those that were not.
    """
    jobs: list[Job] = []
    for array in arrays:
        after = jobs[-1].array_id if jobs and array.packing.array_parallelism else None
        try:
            jobs += array.submit(after)
        except SlurmError as error:
            if jobs:
                raise SlurmError(
                    f"{error}; the same command follows those submitted before it: {array_ids(jobs)}"
                ) from None
            raise
    return jobs


def _cut(items: Sequence[_T], size: int) -> list[Sequence[_T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
