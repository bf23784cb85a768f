"""What a person sees while a sweep goes on: a line for each run that ended, and one that lives."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pmexp.config import RunConfig
from pmexp.journal import progress_of
from pmexp.run_folder import RunFolder
from pmexp.sweep import Outcome


class SweepProgress:
    """Prints to the terminal; on anything else only the lines of ended runs."""

    def __init__(self, total: int, n_jobs: int) -> None:
        self._total, self._n_jobs = total, n_jobs
        self._started: dict[str, float] = {}
        self._ended = 0
        self._seconds: list[float] = []  # of the runs that ended here, from their last start
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> "SweepProgress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def started(self, run: RunConfig) -> None:
        self._started[run.run_id] = time.monotonic()

    def ended(self, run: RunConfig, outcome: Outcome) -> None:
        """A run that was never started here has been finished by another process."""
        self._ended += 1
        after = ""
        if run.run_id in self._started:
            seconds = time.monotonic() - self._started[run.run_id]
            self._seconds.append(seconds)
            after = f" after {seconds:.1f} s"
        count = f"{self._ended}/{self._total}"
        self.say(f"[{count}] {run.run_id} {outcome.state.value}{after} {outcome.error}".rstrip())

    def show(self, running: Sequence[RunConfig]) -> None:
        """Redraws the living line from the journals of the running runs."""
        if self._console.is_terminal:
            lines = [f"{self._ended}/{self._total} runs ended, {self._eta(len(running))}"]
            for run in running:
                found = progress_of(RunFolder(run.folder).journal)
                state = f"step {found.step}/{found.total} loss {found.loss:.4f}" if found.step else "starting"
                lines.append(f"  {run.run_id} {state}")
            self._live.update(Text("\n".join(lines)))

    def _eta(self, running: int) -> str:
        if not self._seconds:
            return "time left unknown until the first run ends"
        mean = sum(self._seconds) / len(self._seconds)
        waiting = self._total - self._ended - running / 2  # a running run is half done on average
        minutes, seconds = divmod(round(mean * waiting / self._n_jobs), 60)
        return f"about {minutes}:{seconds:02d} left"
