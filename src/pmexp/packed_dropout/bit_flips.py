"""Injects faults into stored masks on purpose, to learn how many of them training bears.

They strike between the draw of a mask and its saving, so packed_dropout calls this itself.
"""

import torch
from torch import Tensor

from pmexp.packed_dropout import ops


def flip_bits(packed: Tensor, values: int, rate: float, seed: Tensor) -> Tensor:
    """Returns `packed` with each of its first `values` bits flipped with probability `rate`.

    Args:
        packed: uint8, at least ceil(values / 8) of them; not changed.
        rate: in [0, 1].
        seed: one int64 on the device of `packed` or the CPU; the same seed flips the same bits.
    """
    nothing = packed.new_zeros(values, dtype=torch.float16)
    flips = ops.packed_dropout(nothing, seed, 1.0 - rate, 1)[1]  # a mask that keeps is a mask that flips
    flipped: Tensor = packed ^ flips
    return flipped
