"""Holds what all views of a sweep share: lines that stay, and on a terminal a part below that is redrawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

from hydra_plugins.pmexp_launchers.sweep import names_of
from pmexp.config import RunConfig
from pmexp.masking import masked
from pmexp.shown import printable


class LiveView:
    """Prints to the terminal; on anything else only the lines."""

    def __init__(self, runs: Sequence[RunConfig]) -> None:
        self._names = names_of([run.folder for run in runs])
        self._total, self._ended = len(runs), 0
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
        """How many of how many runs have ended, such as 3/20."""
        return f"{self._ended}/{self._total}"

    def name_of(self, folder: Path) -> str:
        """What tells the run of a folder from the others of the sweep."""
        return self._names[folder]

    def say(self, text: str) -> None:
        self._console.print(printable(masked(text), lines=True), markup=False, emoji=False)

    def say_ended(self, text: str) -> None:
        """Prints the line of a run that ended, with its number among all."""
        self._ended += 1
        self.say(f"[{self.ended_runs}] {text}".rstrip())

    def draw(self, content: RenderableType) -> None:
        self._live.update(content)
