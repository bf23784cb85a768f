"""Computes how near a contender comes to the memory's speed, which on a GPU is the ceiling of dropout.

A call must read and write every element, 2 s bytes at s bytes a number, and write or read its part of the
mask: 1 byte of a byte mask, bits / 8 of a packed one, nothing of a seed. A plain copy moves 2 s.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pmexp.bench.contenders import BACKWARD, BOTH, FORWARD, Contender
from pmexp.bench.timing import Effort, Timing, seconds_a_call

_PASSES = {FORWARD: 1, BACKWARD: 1, BOTH: 2}  # over the tensor; a second backward may have a cached mask


@dataclass(frozen=True)
class BandwidthRow:
    """A line of bandwidth.csv."""

    contender: str
    dtype: str
    shape: str
    phase: str
    bytes_per_element: float  # that the phase must move
    gb_per_s: float
    copy_share: float  # the bandwidth over that of a plain copy of the same tensor


def copy_seconds(x: Tensor, amount: Effort) -> float:
    """Seconds of a copy of `x` into memory that is there already: the median of as many timings."""
    source, target = x.detach(), torch.empty_like(x)
    target.copy_(source)
    timings = amount.rounds * amount.timings
    return statistics.median(
        seconds_a_call(lambda: target.copy_(source), amount.repeats, x.device) for _ in range(timings)
    )


def bandwidth(
    rows: Sequence[Timing], field: Sequence[Contender], x: Tensor, seconds_of_copy: float
) -> list[BandwidthRow]:
    """What the rows of one shape and dtype say about bandwidth. `x`: a tensor of that shape and dtype."""
    per_element = {c.name: 2 * x.element_size() + c.saved_bytes(x) / x.numel() for c in field}
    copy_speed = 2 * x.element_size() * x.numel() / seconds_of_copy
    speeds = []
    for row in rows:
        if row.phase in _PASSES:
            needed = _PASSES[row.phase] * per_element[row.contender]
            speed = needed * row.numel / (row.ms / 1e3)
            share = speed / copy_speed
            speeds.append(
                BandwidthRow(row.contender, row.dtype, row.shape, row.phase, needed, speed / 1e9, share)
            )
    return speeds
