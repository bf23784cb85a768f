"""Tells in one word what became of a run."""

import socket
import time
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pmexp.run_folder.folder import HEARTBEAT_S, RunFolder

_STALE_S = 12 * HEARTBEAT_S  # a live run beats within it, shown up to 60 s late by network file systems


class State(Enum):
    """Names what became of a run; the value is what people read, in every command and report."""

    pending = "pending"  # planned, or a folder that nobody has begun
    running = "running"
    finished = "finished"
    oom = "out of memory"  # a result: the run counts as done
    failed = "failed"
    interrupted = "interrupted"  # a stop signal ended it, with a checkpoint
    stale = "stale"  # begun, without an end on record, and its process is gone

    @property
    def is_result(self) -> bool:
        """Whether the run stays as it is."""
        return self in (State.finished, State.oom)


def state_of(folder: RunFolder) -> State:
    """The state of a run by what lies in its folder, on this or another machine.

    Raises UserError where what lies there is damaged.
    """
    if folder.is_finished():
        return State.oom if folder.out_of_memory() else State.finished
    return unfinished_state(folder, folder.failed(), folder.owner())


def unfinished_state(folder: RunFolder, failure: Mapping[str, Any], owner: Mapping[str, Any]) -> State:
    """state_of() a run that has no summary, by what RunFolder.failed and .owner have read already."""
    if failure:
        return State.interrupted if failure["status"] == State.interrupted.value else State.failed
    if folder.is_claimed():
        return State.running
    if not owner:
        return State.stale if folder.journal.is_file() else State.pending
    if owner["host"] == socket.gethostname():
        return State.stale
    # Its node may hold locks that are not seen here. A time to come is of a clock that was wrong, and would
    # be fresh until then.
    beat = folder.heartbeat.stat().st_mtime if folder.heartbeat.is_file() else float(owner["started"])
    return State.running if abs(time.time() - beat) < _STALE_S else State.stale
