"""Measures step and epoch times, and computes throughput from them."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pmexp.metrics.catalog import CORE_WAIT, MOST_CORE_WAIT, MOST_DATA_WAIT

WARMUP_STEPS = 5
_QUEUE = Path("/proc/thread-self/schedstat")  # nanoseconds on a core, those ready for one, and turns


class StepTimer:
    """Wall time of each step and of each whole epoch, in seconds; on CUDA the device is waited for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: list[float] = []  # what this process has measured
        self.data_seconds: list[float] = []  # in which the same steps waited for their data
        self.core_seconds: list[float] = []  # in which the same steps were ready and waited for a core
        self._before: list[float] = []  # what the run's earlier tries have measured, without their warm-up
        self._data_before: list[float] = []
        self._core_before: list[float] = []
        self._waited = 0.0  # in this step
        self._share_said = 0.0  # the share of waits when it was last said
        self._epochs: list[float] = []
        self._epoch_began: float | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        queued, self._waited, start = _queued(), 0.0, seconds_now(self._device)
        yield
        self.seconds.append(seconds_now(self._device) - start)
        self.data_seconds.append(self._waited)
        self.core_seconds.append(_queued() - queued)

    @contextmanager
    def data(self) -> Iterator[None]:
        """A context around what a step waits for before its forward: its batch."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def begin_epoch(self) -> None:
        self._epoch_began = seconds_now(self._device)

    def end_epoch(self) -> None:
        """Ends the epoch before its validation. The time between two tries of a run is no part of an
        epoch."""
        if self._epoch_began is not None:
            self._epochs.append(seconds_now(self._device) - self._epoch_began)
            self._epoch_began = None

    @contextmanager
    def pause(self) -> Iterator[None]:
        """A context around what is no part of an epoch: an evaluation in the midst of it."""
        start = seconds_now(self._device)
        yield
        if self._epoch_began is not None:
            self._epoch_began += seconds_now(self._device) - start

    def metrics(self, samples_per_step: int, tokens_per_sample: float) -> dict[str, float]:
        """Median, 10th and 90th percentile after the warm-up, the throughput at the median, the mean time
        that a step waits for its data, the shares of the mean step that it waits for data and for a core, and
        the mean wall time of an epoch, data, journal and all but validation included."""
        epochs = {"speed/epoch_s": float(np.mean(self._epochs))} if self._epochs else {}
        measured = self._measured()
        if not measured:
            return epochs
        p10, median, p90 = np.percentile(measured, (10, 50, 90))
        return (
            epochs
            | self.waiting()
            | ({CORE_WAIT: share} if math.isfinite(share := self._core_wait_share()) else {})
            | {
                "speed/step_ms": 1e3 * float(median),
                "speed/step_ms_p10": 1e3 * float(p10),
                "speed/step_ms_p90": 1e3 * float(p90),
                "speed/samples_per_s": samples_per_step / float(median),
                "speed/tokens_per_s": samples_per_step * tokens_per_sample / float(median),
            }
        )

    def waiting(self) -> dict[str, float]:
        """How long steps have waited for their data so far; nothing before the first measured one."""
        waits, steps = self._waits(), self._measured()
        if not waits or not steps:
            return {}
        wait = float(np.mean(waits))
        return {
            "speed/data_wait_ms": 1e3 * wait,
            "speed/data_wait_share": wait / float(np.mean(steps)),
        }

    def waited_too_long(self) -> str:
        """Says so where the speed is that of the loader, not of the steps; empty otherwise."""
        share = self._wait_share()
        if share <= MOST_DATA_WAIT:
            return ""
        return (
            f"waited for data {share:.1%} of its steps' time, more than {MOST_DATA_WAIT:.0%}: its speed is "
            "the loader's; try more train.workers"
        )

    def newly_waited_too_long(self) -> str:
        """Says the same the first time that it is so, and again where the share has doubled since."""
        if self._wait_share() < 2 * self._share_said:
            return ""
        said = self.waited_too_long()
        self._share_said = self._wait_share() if said else 0.0
        return said

    def _wait_share(self) -> float:
        return self.waiting().get("speed/data_wait_share", 0.0)

    def shared_cores(self) -> str:
        """Says so where other work had the cores of the steps, so that their times are those of a loaded
        machine; empty otherwise, and where the system does not tell."""
        share = self._core_wait_share()
        if not share > MOST_CORE_WAIT:
            return ""
        return (
            f"was ready and waited for a core {share:.0%} of the time of its steps: other work had its cores"
        )

    def _core_wait_share(self) -> float:
        waits, steps = self._core_waits(), self._measured()
        return float(np.mean(waits)) / float(np.mean(steps)) if waits and steps else math.nan

    def state(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        so_far = None if self._epoch_began is None else seconds_now(self._device) - self._epoch_began
        return {
            "steps": self._measured(),
            "data": self._waits(),
            "core": self._core_waits(),
            "epochs": list(self._epochs),
            "epoch_so_far": so_far,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._before = list(state["steps"])
        self._data_before = list(state.get("data", ()))  # older checkpoints have none
        self._core_before = list(state.get("core", ()))
        self._epochs = list(state["epochs"])
        so_far = state["epoch_so_far"]
        self._epoch_began = None if so_far is None else seconds_now(self._device) - so_far

    def _measured(self) -> list[float]:
        return self._before + self.seconds[WARMUP_STEPS:]

    def _waits(self) -> list[float]:
        return self._data_before + self.data_seconds[WARMUP_STEPS:]

    def _core_waits(self) -> list[float]:
        return self._core_before + self.core_seconds[WARMUP_STEPS:]


def seconds_now(device: torch.device) -> float:
    """Reads a clock, in seconds, once CUDA has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _queued() -> float:
    """Seconds in which this thread was ready to run and had no core; NaN where the system does not tell."""
    try:
        return int(_QUEUE.read_bytes().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return math.nan
