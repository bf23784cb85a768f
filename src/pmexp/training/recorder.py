"""The record of one run: folder, journal and tracker from its claim on, and an exit for each way to end."""

import logging
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pmexp.config import RunConfig
from pmexp.errors import Interrupted, MachineError, RunClaimed, UserError, error_line
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.metrics.catalog import metric_of
from pmexp.run_folder.failure import FailureKind, kind_of
from pmexp.run_folder.folder import Claim, RunFolder
from pmexp.run_folder.journal import Journal, NoJournal
from pmexp.run_folder.summary import NOT_FINITE, write_summary
from pmexp.systems.ranks import Ranks
from pmexp.tracking.beside import MirrorBeside, open_mirror
from pmexp.tracking.mirror import Mirror, NoMirror

log = logging.getLogger(__name__)


@dataclass
class Description:
    """Holds what a run's record says beside its journal, as functions to be called whenever the run ends."""

    environment: Callable[[], Mapping[str, Any]] = dict
    replacement: Callable[[], Mapping[str, Any]] = dict
    last: Callable[[], tuple[int, Mapping[str, float]]] = lambda: (0, {})  # a step, and what to write at it
    # It shows what was allocated, where memory did not suffice.
    snapshot: Callable[[], Path | None] = lambda: None


class Recorder:
    """Records one run. Each rank has one; rank 0 alone has claim, journal and tracker, and writes files."""

    def __init__(self, config: RunConfig, ranks: Ranks) -> None:
        self.folder = RunFolder(config.folder)
        self.description = Description()
        self.journal: Journal | NoJournal = NoJournal(self.folder.journal)
        self._config, self._ranks = config, ranks
        self._mirror: Mirror | MirrorBeside | NoMirror = NoMirror()
        self._claim: Claim | None = None
        self._warned: set[str] = set()  # losses and scores
        self._has_log = False  # whether the folder is open, so that log lines reach the run's log
        self._opened = ExitStack()

    @contextmanager
    def turn(self, capture_output: bool) -> Iterator[bool]:
        """Claims the run on rank 0 and opens its folder for all; yields False if it got finished meanwhile.

        From the claim on it is put on record how the block ends, whatever ends it. Out of memory is a result:
        of a run of one process it is no error any more; the other ranks of several have to end too. Raises
        RunClaimed on every rank where another process has the run.
        """
        ranks = self._ranks
        with ExitStack() as held:
            refusal = ""
            if ranks.is_first:
                try:
                    self._claim = held.enter_context(self.folder.claimed())
                except RunClaimed as error:
                    refusal = str(error)
            if refusal := ranks.from_first(refusal):
                raise RunClaimed(refusal)
            if ranks.from_first(is_finished(self.folder)):
                yield False
                return
            with self._recorded():
                if ranks.is_first:
                    self.folder.failure.unlink(missing_ok=True)  # an earlier try may have left it
                    held.enter_context(self.folder.opened(self._config.to_dict(), capture_output))
                ranks.wait()
                if not ranks.is_first:
                    held.enter_context(self.folder.joined(ranks.rank))
                self._has_log = True
                yield True

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Puts on record how the block ends, be it that the disk is too full for its result."""
        with ExitStack() as self._opened:
            try:
                try:
                    yield
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    self.out_of_memory(self._rank_prefix() + error_line(error))
                    if self._ranks.world_size > 1:
                        raise
            except BaseException as error:
                if not self.folder.is_finished():
                    self._fail(error)
                if isinstance(error, Exception):
                    with suppress(OSError):  # the disk fails, as `error` says
                        self.check_claim()  # where the folder is gone, all else failed for that reason
                raise

    def open(self, keep_bytes: int) -> None:
        """Opens journal and tracker, keeping of the journal what a resumed run wrote by its checkpoint."""
        if self._ranks.is_first:
            self.journal = self._opened.enter_context(Journal(self.folder.journal, keep_bytes))
            self._mirror = open_mirror(self._config, self.folder)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes to the journal, and warns of each loss and score that is not finite the first time."""
        self.journal.write(step, metrics)
        if not self._ranks.is_first:
            return
        for name, value in metrics.items():
            if not math.isfinite(value) and name not in self._warned and metric_of(name).is_loss_or_score:
                self._warned.add(name)
                log.warning("%s is no finite number at step %d (%s)", name, step, value)

    def stepped(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes what a step has measured, and begins to mirror it, which would slow a run's first step."""
        self.write(step, metrics)
        self._mirror.begin()

    def check_claim(self) -> None:
        """Raises RunClaimed where the folder is no longer the one that this process claimed."""
        if self._claim:
            self._claim.check()

    def finish(self, metrics: Mapping[str, float], outcome: Mapping[str, Any]) -> None:
        """Writes the result of a run that came to its end; `outcome`: see write_summary."""
        if self._ranks.is_first:
            self._write_summary(metrics, outcome=outcome)
            self._mirror.finish("FINISHED")

    def out_of_memory(self, said: str) -> None:
        """Writes what a run had measured when memory did not suffice: a result like another."""
        log.error("out of memory, which is this run's result:\n%s", traceback.format_exc())
        if snapshot := self.description.snapshot():
            log.info("what was allocated: %s (for https://pytorch.org/memory_viz)", snapshot)
        if self._ranks.is_first and isinstance(self.journal, NoJournal):  # the run ended before `open`
            self.open(keep_bytes=0)
        self.journal.write(*self.description.last())
        self._write_summary(self.journal.last_values(), said)
        self._mirror.finish("FAILED")

    def _write_summary(
        self, metrics: Mapping[str, float], out_of_memory: str = "", outcome: Mapping[str, Any] | None = None
    ) -> None:
        """Writes journal, disk and summary, in this order, and removes what only an unfinished run needs."""
        self.check_claim()
        self.journal.sync()
        config = self._config
        run = {"run_id": config.run_id, "name": config.name, "labels": config.labels}
        run |= {"settings": config.settings, "protocol": config.to_dict()["protocol"]}
        environment = dict(self.description.environment())
        if said := self.journal.not_finite():
            environment[NOT_FINITE] = said
        parts = (environment, self.description.replacement(), self._mirror.reference)
        journal = self.journal.digest()
        write_summary(self.folder.summary, run, metrics, *parts, journal, out_of_memory, outcome)
        self.folder.drop_resume_checkpoints()

    def _fail(self, error: BaseException) -> None:
        kind = (
            FailureKind.interrupted if isinstance(error, Interrupted | KeyboardInterrupt) else kind_of(error)
        )
        rank = "" if kind is FailureKind.interrupted else self._rank_prefix()
        # A MachineError has said in its line what the machine lacks.
        unexpected = kind is FailureKind.infrastructure and not isinstance(error, MachineError)
        if kind is FailureKind.code or (unexpected and self._has_log):
            log.error("%s", traceback.format_exc())
        # The error itself says what a disk lacks, and the folder may be another's by now.
        with suppress(OSError, RunClaimed):
            self.check_claim()
            said = str(error) if isinstance(error, UserError) else error_line(error)
            self.folder.fail(kind, f"{rank}{said}")
        self._mirror.finish("KILLED" if kind is FailureKind.interrupted else "FAILED")

    def _rank_prefix(self) -> str:
        return f"rank {self._ranks.rank}: " if self._ranks.world_size > 1 else ""


def is_finished(folder: RunFolder) -> bool:
    """Whether the run has a result already; logs where it is."""
    if folder.is_finished():
        log.info("%s is finished: %s", folder.path.name, folder.summary)
    return folder.is_finished()
