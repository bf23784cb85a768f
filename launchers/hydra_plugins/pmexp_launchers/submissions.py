"""Records which job has which runs, in ``runs/<name>/slurm/submissions.jsonl``: none is submitted twice."""

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pmexp.errors import UserError
from pmexp.run_folder.files import parsed_json, read_content, write_atomically


@dataclass(frozen=True)
class Job:
    """One job, or one element of an array, and the runs it has."""

    job_id: str
    run_ids: tuple[str, ...]
    folder: Path  # where submitit writes

    @property
    def array_id(self) -> str:
        """The id of the array it is an element of; its own where it stands alone."""
        return self.job_id.partition("_")[0]

    @property
    def run_folders(self) -> list[Path]:
        return [self.folder.parent / run_id for run_id in self.run_ids]

    @property
    def output(self) -> Path:
        """What the job printed before its run had a log, and what SLURM said to it."""
        return self.folder / f"{self.job_id}_0_log.out"


def array_ids(jobs: Iterable[Job]) -> str:
    """The ids of jobs as scancel takes them, those of an array by one."""
    return " ".join(dict.fromkeys(job.array_id for job in jobs))


class Submissions:
    """The record of one experiment's submissions."""

    def __init__(self, experiment: Path) -> None:
        self.folder = experiment / "slurm"
        self._file = self.folder / "submissions.jsonl"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds off other drivers: between a look at what lives and a submission nothing may be submitted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".submissions.lock"):
            yield

    def add(self, jobs: Sequence[Job]) -> None:
        """Puts jobs on record, all or none. Who calls it holds the lock."""
        lines = [json.dumps({"job": job.job_id, "runs": job.run_ids}) + "\n" for job in jobs]
        write_atomically(self._file, (read_content(self._file) or b"") + "".join(lines).encode())

    def living(self, queued: Collection[str]) -> list[Job]:
        """The jobs on record that are among those `queued`. Raises UserError for a line that is no record."""
        jobs = map(self._job_of, itertools.count(1), (read_content(self._file) or b"").splitlines())
        return [job for job in jobs if job.job_id in queued]

    def _job_of(self, number: int, line: bytes) -> Job:
        try:
            match parsed_json(line):
                case {"job": str(job_id), "runs": [*run_ids]}:
                    return Job(job_id, tuple(map(str, run_ids)), self.folder)
        except (ValueError, RecursionError):
            pass
        raise UserError(
            f"{self._file}: line {number} is no record of a job; `scancel` what squeue shows of this sweep, "
            "remove that line and run this again"
        )
