"""Computes matrix products in 16 bits, by autocast; weights, reductions and the optimizer stay in fp32.

In float16 the engine scales the loss. torch has float16 on the CPU too, where it is slow and of use in tests.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from pmexp.systems.base import SystemPart


@dataclass(frozen=True)
class Autocast(SystemPart):
    """Runs each forward under torch's autocast to `dtype`."""

    dtype: torch.dtype

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, self.dtype)
