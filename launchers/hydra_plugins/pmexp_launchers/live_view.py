"""What all views of a sweep share: lines that stay, and on a terminal something below them that lives."""

from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

from pmexp.masking import masked
from pmexp.shown import printable


class LiveView:
    """Prints to the terminal; on anything else only the lines."""

    def __init__(self, total: int) -> None:
        self._total, self._ended = total, 0
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
        """As 3/20."""
        return f"{self._ended}/{self._total}"

    def say(self, text: str) -> None:
        self._console.print(printable(masked(text), lines=True), markup=False, emoji=False)

    def say_ended(self, text: str) -> None:
        """The line of a run that ended, with its number among all."""
        self._ended += 1
        self.say(f"[{self.ended_runs}] {text}".rstrip())

    def draw(self, what: RenderableType) -> None:
        self._live.update(what)
