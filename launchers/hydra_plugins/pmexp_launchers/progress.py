"""Shows a sweep while it goes on: a line for each run that ended, and below them lines that are redrawn."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.text import Text

from hydra_plugins.pmexp_launchers.live_view import LiveView
from hydra_plugins.pmexp_launchers.sweep import Outcome
from pmexp.config import RunConfig
from pmexp.run_folder.folder import RunFolder
from pmexp.run_folder.journal_lines import progress_of
from pmexp.shown import duration


class SweepProgress(LiveView):
    """Shows the runs of the local launcher."""

    def __init__(self, runs: Sequence[RunConfig], names: Mapping[Path, str], n_jobs: int) -> None:
        super().__init__(runs, names)
        self._n_jobs = n_jobs
        self._started: dict[Path, float] = {}  # by folder
        self._seconds: list[float] = []  # how long the runs that ended here took from their last start

    def started(self, run: RunConfig) -> None:
        self._started[run.folder] = time.monotonic()

    def ended(self, run: RunConfig, outcome: Outcome) -> None:
        """Prints the line of a run; one that was never started here has been finished by another process."""
        own = ""
        if run.folder in self._started:
            seconds = time.monotonic() - self._started[run.folder]
            self._seconds.append(seconds)
            own = duration(seconds)
        self.say_ended(run, outcome, own)

    def show(self, running: Sequence[RunConfig]) -> None:
        """Redraws the lines of the running runs from their journals."""
        if self.is_alive:
            lines = [f"{self.ended_runs} runs ended, {self._eta(len(running))}"]
            for run in running:
                reached = progress_of(RunFolder(run.folder).journal)
                state = (
                    f"step {reached.step}/{reached.total} loss {reached.loss:.4f}"
                    if reached.step
                    else "starting"
                )
                lines.append(f"  {self.name_of(run.folder)} {state}")
            self.draw(Text("\n".join(lines)))

    def _eta(self, running: int) -> str:
        if not self._seconds:
            return "time left unknown until the first run ends"
        mean = sum(self._seconds) / len(self._seconds)
        waiting = self._total - self._ended - running / 2  # a running run is half done on average
        return f"about {duration(mean * waiting / self._n_jobs)} left"
