"""Gives a stage its device, its time, and a file for its findings."""

import json
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pmexp.bench.gpu.budget import Budget, TimeIsUp

if TYPE_CHECKING:  # the process that starts the stages reads findings too, and does without torch
    import torch

Cell = str | int | float | bool | None
_SHORTEST = 3.0  # seconds that a part of a stage takes at least


class Bench:
    """Writes each finding of a stage at once, as one line of JSON, so that a kill loses none."""

    def __init__(self, device: "torch.device", tiny: bool, budget: Budget, findings: IO[str]) -> None:
        """tiny: sizes that a CPU is done with in seconds, to try the code and not to measure."""
        self.device, self.tiny, self.budget = device, tiny, budget
        self._findings = findings

    def row(self, table: str, **cells: Cell) -> None:
        """Adds a row; the keys, with their underscores as spaces, head the columns and carry the unit."""
        self._write(kind="row", table=table, cells=cells)

    def check(self, what: str, held: bool, detail: str = "") -> None:
        """Says whether something holds that has to: figures beside one that does not are worth nothing."""
        self._write(kind="check", what=what, held=bool(held), detail=detail)

    def note(self, text: str) -> None:
        self._write(kind="note", text=text)

    def left_out(self, text: str) -> None:
        """Names what was not measured, and why."""
        self._write(kind="left_out", text=text)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A piece of the stage whose failure is named and ends nothing but itself.

        Raises TimeIsUp where no time is left for it, which ends the stage; what was in hand is named.
        """
        if self.budget.left < _SHORTEST:
            self.left_out(f"{name}: no time was left")
            raise TimeIsUp
        try:
            yield
        except TimeIsUp:
            self.left_out(f"{name}: broken off, the stage's time was over")
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self.failed(name, error)

    def in_order(self, pieces: Mapping[str, "Callable[[Bench], None]"]) -> None:
        """Runs each as a part. Where the time ends, by TimeIsUp, all that was not reached is named."""
        names = iter(pieces.items())
        try:
            for name, piece in names:
                with self.part(name):
                    piece(self)
        except TimeIsUp:
            for name, _ in names:
                self.left_out(f"{name}: no time was left")
            raise

    def failed(self, name: str, error: BaseException) -> None:
        """Names a part, or the whole stage, that ended by an error."""
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        self._write(kind="failed", text=f"{name}: {type(error).__name__}: {first}")

    def environment(self, facts: dict[str, str]) -> None:
        self._write(kind="environment", found=facts)

    def _write(self, **line: Any) -> None:
        self._findings.write(json.dumps(line) + "\n")
        self._findings.flush()


def read_findings(file: Path) -> list[dict[str, Any]]:
    """What a stage wrote, without a last line that a kill cut short."""
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]
