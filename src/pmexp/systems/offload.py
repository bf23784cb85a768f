"""Activations wait for backward in the CPU's memory, pinned where the model is on CUDA.

Parameters, which autograd saves too, stay where they are. On a CPU device the activations are there already:
nothing moves and no number changes.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from pmexp.systems.base import SystemPart


class Offload(SystemPart):
    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        return _ActivationsOnCpu(pin=device.type == "cuda")


class _ActivationsOnCpu(saved_tensors_hooks):
    """Autograd asks the innermost hooks only; the pack hook around these, a ledger's, is called from here."""

    def __init__(self, pin: bool) -> None:
        around = torch._C._autograd._top_saved_tensors_default_hooks(False)
        to_cpu = save_on_cpu(pin_memory=pin)

        def pack(tensor: Tensor) -> Any:
            if around is not None:
                around[0](tensor)
            stays = isinstance(tensor._base if tensor._is_view() else tensor, nn.Parameter)
            return tensor if stays else to_cpu.pack_hook(tensor)

        def unpack(packed: Any) -> Tensor:
            return packed if isinstance(packed, Tensor) else to_cpu.unpack_hook(packed)

        super().__init__(pack, unpack)
