"""Shows the runs of an experiment again and again until nothing runs any more."""

from collections.abc import Callable, Sequence
from time import monotonic, sleep

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pmexp.run_folder.found import FoundRun
from pmexp.run_folder.state import State
from pmexp.runs.table import counts, run_lines

_REFRESH_SECONDS = 2.0
_QUIET_SECONDS = 10.0  # between two runs of a sweep none may run for a moment


def watch(read: Callable[[Sequence[FoundRun]], list[FoundRun]]) -> list[FoundRun]:
    """Draws what `read` gives (it gets what it gave before) until no run has been running for a while or all
    are settled; returns the last. Draws nothing where the output is no terminal."""
    console = Console(highlight=False)
    runs = read([])
    last_running = monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not all(run.is_settled for run in runs):
            if any(run.state is State.running for run in runs):
                last_running = monotonic()
            elif monotonic() - last_running >= _QUIET_SECONDS:
                break
            if console.is_terminal:
                live.update(Text("\n".join(_lines(runs)), no_wrap=True, overflow="ellipsis"), refresh=True)
            sleep(_REFRESH_SECONDS)
            runs = read(runs)
    return runs


def _lines(runs: Sequence[FoundRun]) -> list[str]:
    """Returns a line for each run that is under way, and how many there are: all would not fit."""
    shown = [run for run in runs if not run.is_settled and run.state is not State.pending]
    return [counts(runs), *run_lines(shown, runs)]
