"""Ends all ranks within seconds of the failure of one, also those that wait for it in a collective.

A rank that waits may not notice: NCCL waits on the device, where no signal and no lost connection reaches the
rank. So one that fails says so in the store in which the ranks have met, and a thread of each looks there.
That works under any launcher; they end the others by force too, some of them after minutes.
"""

import logging
import os
import sys
import threading
from contextlib import suppress
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

log = logging.getLogger(__name__)

_KEY = "pmexp/alarm"
_LOOK_S = 0.5
_GRACE_S = 3.0  # a rank that notices a lost connection has so long to close what it has open
_stopped = threading.Event()


def watch(rank: int) -> None:
    """Ends this process once another rank has rung, or the store is gone with rank 0."""
    shared: Any = _get_default_store()
    store = shared.clone()  # the thread needs its own connection, since the other one may be waiting

    def look() -> None:
        reason = ""
        while not reason and not _stopped.wait(_LOOK_S):
            try:
                reason = store.get(_KEY).decode() if store.check([_KEY]) else ""
            except RuntimeError:  # a DistNetworkError is one
                reason = "rank 0 is gone"
        if _stopped.wait(_GRACE_S):
            return
        log.error("rank %d ends: %s", rank, reason)
        sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=look, name="alarm", daemon=True).start()


def ring(reason: str) -> None:
    """Has the other ranks end and log `reason`, one line. This one has to end by itself."""
    if dist.is_initialized():
        with suppress(RuntimeError):  # the others end then because the store is gone
            _get_default_store().set(_KEY, f"rank {dist.get_rank()}: {reason}")


def stop() -> None:
    """Stops the watch, before ranks end that have nothing more to wait for."""
    _stopped.set()
