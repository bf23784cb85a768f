"""float16 autocast: matrix products in fp16, weights and optimizer in fp32; the engine scales the loss.

torch has it on the CPU too, where it is slow and of use in tests.
"""

from contextlib import AbstractContextManager

import torch

from pmexp.systems.base import SystemPart


class Fp16(SystemPart):
    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.float16)
