"""bfloat16 autocast: matrix products in bf16, weights, reductions and optimizer in fp32."""

from contextlib import AbstractContextManager

import torch

from pmexp.systems.base import SystemPart


class Bf16(SystemPart):
    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16)
