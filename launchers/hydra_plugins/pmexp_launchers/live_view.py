"""Holds what all views of a sweep share: lines that stay, and on a terminal a part below that is redrawn."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

from hydra_plugins.pmexp_launchers.sweep import Outcome
from pmexp.config import RunConfig
from pmexp.masking import masked
from pmexp.shown import duration, printable


class LiveView:
    """Prints to the terminal; on anything else only the lines."""

    def __init__(self, runs: Sequence[RunConfig], names: Mapping[Path, str]) -> None:
        """`names`: of the runs, by their folders."""
        self._names, self._total, self._ended = names, len(runs), 0
        self._began = time.monotonic()
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self.is_alive:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @property
    def is_alive(self) -> bool:
        """Whether there is somebody to draw for."""
        return self._console.is_terminal

    @property
    def ended_runs(self) -> str:
        """How many of how many runs have ended, such as "3 of 20"."""
        return f"{self._ended} of {self._total}"

    def name_of(self, folder: Path) -> str:
        """What tells the run of a folder from the others of the sweep."""
        return self._names[folder]

    def say(self, text: str) -> None:
        self._console.print(printable(masked(text), lines=True), markup=False, emoji=False)

    def say_ended(self, run: RunConfig, outcome: Outcome, of_run: str = "") -> None:
        """Prints the line of a run that ended: `of_run`, how many have ended in what time, and its error or
        warning."""
        self._ended += 1
        of_all = f"{self.ended_runs} in {duration(time.monotonic() - self._began)}"
        after = "; ".join(filter(None, [of_run, of_all]))
        line = f"{self.name_of(run.folder)} {outcome.state.value} ({after})"
        said = outcome.error or outcome.warning
        self.say(f"{line}: {said}" if said else line)

    def draw(self, content: RenderableType) -> None:
        self._live.update(content)
