"""Times one contender's turn, on the CPU and on CUDA."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pmexp.bench.contenders import BACKWARD, BOTH, FORWARD, SECOND_BACKWARD, Contender

_AMOUNTS = (  # elements at most, rounds, timings
    (10**5, 30, 3),
    (10**6, 20, 2),
    (10**7, 8, 1),
    (math.inf, 6, 1),
)
_HEAD_START_CYCLES = 10_000_000  # the GPU waits so long, about 6 ms, while calls queue up


@dataclass(frozen=True)
class Effort:
    """How many rounds, timings and calls are measured at one size."""

    rounds: int  # in each every contender has a turn
    timings: int  # in a turn; the turn counts their median
    repeats: int  # calls in a timing


@dataclass(frozen=True)
class Timing:
    """What one phase of one contender took at one shape and dtype: a line of micro.csv."""

    contender: str
    device: str
    dtype: str
    shape: str  # lengths joined by "x"
    numel: int
    phase: str
    ms: float  # that one call took: the median over rounds
    ratio: float  # the baseline's time over the contender's: above 1 is faster than nn.Dropout
    low: float  # where the 95 % interval of the ratio begins
    high: float  # where it ends


def effort(numel: int, device: torch.device, quick: bool) -> Effort:
    """Returns less of all for larger tensors; on CUDA one long timing a turn keeps its queue filled."""
    rounds, timings = next(amounts for most, *amounts in _AMOUNTS if numel <= most)
    rounds = max(6, rounds // 3) if quick else rounds
    if device.type == "cuda":
        return Effort(rounds, 1, min(20, max(4, 2**28 // numel)))
    return Effort(rounds, timings, min(10, max(1, 2**17 // numel)))


def turn(contender: Contender, x: Tensor, grad: Tensor, effort: Effort) -> dict[str, float]:
    """Returns seconds a call of each phase of `contender`: the medians of this turn's timings.

    It begins with an untimed call, so that the timed ones find the caches and the allocator as this
    contender leaves them, and not as the one before it did.
    """
    torch.autograd.grad(contender.drop(x), x, grad)
    timed = [_phases(contender, x, grad, effort.repeats) for _ in range(effort.timings)]
    return {phase: statistics.median(seconds[phase] for seconds in timed) for phase in contender.phases}


def seconds_a_call(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Returns the mean wall time of `repeats` calls, in seconds; on CUDA the mean time that the device takes
    for one.

    On CUDA the calls queue up behind a wait of the device, between two events, and then run without gaps:
    the host's part of a call, which level=step shows, is not in the figure unless the wait was too short.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    torch.cuda._sleep(_HEAD_START_CYCLES)
    first.record()
    for _ in range(repeats):
        call()
    last.record()
    last.synchronize()
    milliseconds: float = first.elapsed_time(last)
    return milliseconds / 1e3 / repeats


def _phases(contender: Contender, x: Tensor, grad: Tensor, repeats: int) -> dict[str, float]:
    seconds = {}

    def backward(y: Tensor, keep_graph: bool = False) -> None:
        torch.autograd.grad(y, x, grad, retain_graph=keep_graph)

    if FORWARD in contender.phases:
        graphs: list[Tensor] = []
        seconds[FORWARD] = seconds_a_call(lambda: graphs.append(contender.drop(x)), repeats, x.device)
        seconds[BACKWARD] = seconds_a_call(lambda: backward(graphs.pop()), repeats, x.device)
        seconds[BOTH] = seconds_a_call(lambda: backward(contender.drop(x)), repeats, x.device)
    if SECOND_BACKWARD in contender.phases:
        y = contender.drop(x)
        backward(y, keep_graph=True)
        seconds[SECOND_BACKWARD] = seconds_a_call(lambda: backward(y, keep_graph=True), repeats, x.device)
    return seconds
