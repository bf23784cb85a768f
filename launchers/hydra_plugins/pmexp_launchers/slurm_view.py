"""Shows jobs in the queue: a line for each run that ended, and below them a table that is redrawn."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from hydra_plugins.pmexp_launchers.live_view import LiveView
from hydra_plugins.pmexp_launchers.slurm_commands import QueuedJob
from hydra_plugins.pmexp_launchers.submissions import Job
from hydra_plugins.pmexp_launchers.sweep import Outcome
from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal_lines import progress_of

_ROWS = 20  # the most running runs that are shown


class QueueView(LiveView):
    """Shows the runs of a sweep as SLURM has them."""

    def ended(self, run: RunConfig, job: Job, outcome: Outcome) -> None:
        self.say_ended(run, outcome, f"job {job.job_id}")

    def show(self, waited_for: Mapping[Path, tuple[RunConfig, Job]], queue: Mapping[str, QueuedJob]) -> None:
        """Redraws the table: the running runs by their journals, the others by SLURM's reason."""
        if not self.is_alive:
            return
        table = Table(box=None, pad_edge=False)
        for title in ("run", "job", "state", "step", "loss"):
            table.add_column(title)
        others: Counter[str] = Counter()
        for run, job in waited_for.values():
            queued = queue.get(job.job_id)
            if queued and queued.state == "RUNNING" and table.row_count < _ROWS:
                step, loss = _progress(run)
                table.add_row(self.name_of(run.folder), job.job_id, "running", step, loss)
            elif queued:
                reason = "" if queued.reason == "None" else f" ({queued.reason})"
                others[f"{queued.state.lower()}{reason}"] += 1
            else:
                others["ending"] += 1
        counts = ", ".join(f"{number} {what}" for what, number in others.items())
        self.draw(Group(Text(f"{self.ended_runs} runs ended; {counts}"), table))


def _progress(run: RunConfig) -> tuple[str, str]:
    reached = progress_of(RunFolder(run.folder).journal)
    return (f"{reached.step}/{reached.total}", f"{reached.loss:.4f}") if reached.step else ("starting", "")
