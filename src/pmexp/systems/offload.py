"""Keeps activations until backward in the CPU's pinned memory, where the model is on CUDA.

On a CPU device nothing moves.
"""

from contextlib import AbstractContextManager

import torch
from torch import nn

from pmexp.activation_offload import offloaded_activations
from pmexp.systems.base import SystemPart


class Offload(SystemPart):
    """Keeps what forward saves for backward in the memory of the CPU, where the model is on CUDA."""

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        return offloaded_activations(device)

    def record(self, module: nn.Module) -> dict[str, str]:
        on_cuda = next(module.parameters()).is_cuda
        where = "to pinned memory, on streams of their own" if on_cuda else "nothing moves on a CPU device"
        return {"offload": where}
