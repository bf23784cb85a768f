"""Runs PyTorch's scaled_dot_product_attention with its flash kernel first, and notes which kernel ran.

Which kernel runs depends on device, dtype, mask, head size and dropout. torch is asked with the arguments of
real calls, so that a record says what was, not what was hoped for. On the CPU (torch 2.13) the flash kernel
takes masks but no dropout; on CUDA it takes dropout but no masks, and the memory-efficient one takes both.
The math kernel saves the attention probabilities for backward, the others do not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from pmexp.packed_dropout.attention import as_called, chosen_backend, drops

_ORDER = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.MATH,
]
WORDS = {
    SDPBackend.FLASH_ATTENTION: "flash kernel",
    SDPBackend.EFFICIENT_ATTENTION: "memory-efficient kernel",
    SDPBackend.CUDNN_ATTENTION: "cuDNN kernel",
    SDPBackend.MATH: "math kernel",
}

_Ran = dict[str, set[str]]  # the kernels of the first call, by "training" or "evaluation"
_RAN: "WeakKeyDictionary[nn.Module, _Ran]" = WeakKeyDictionary()


@contextmanager
def flash_first(attention: nn.Module) -> Iterator[None]:
    """Opens a context around the SDPA calls of one forward of the module `attention`.

    It belongs inside the module, not around the model: a checkpoint that runs the module again must choose
    the same kernel. The first forward in training and the first in evaluation are noted.
    """
    with sdpa_kernel(_ORDER, set_priority=True):
        ran = {} if torch.compiler.is_compiling() else _RAN.setdefault(attention, {})
        mode = "training" if attention.training else "evaluation"
        if mode in ran or torch.compiler.is_compiling():
            yield
        else:
            ran[mode] = set()
            with _KernelNotes(ran[mode]):
                yield


def kernels_that_ran(model: nn.Module) -> str:
    """Says for the record which kernels ran under flash_first, in training and in evaluation."""
    ran: _Ran = {}
    for module in model.modules():
        for mode, kernels in _RAN.get(module, {}).items():
            ran.setdefault(mode, set()).update(kernels)
    if not ran:
        return "sdpa; its kernel was not seen (no forward, or a compiled one)"
    modes = sorted(ran, reverse=True)
    return "; ".join(["sdpa", *(f"{mode}: {' and '.join(sorted(ran[mode]))}" for mode in modes)])


class _KernelNotes(TorchFunctionMode):
    """Adds the kernel of each SDPA call to `ran`."""

    def __init__(self, ran: set[str]) -> None:
        super().__init__()
        self.ran = ran

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            self.ran.add(_kernel(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _kernel(*args: Any, **kwargs: Any) -> str:
    """Returns the kernel and the device of one call, and whether it drops."""
    call, options = as_called(*args, **kwargs)
    choice = chosen_backend(*call, **options)
    words = f"{WORDS.get(choice, choice.name)} on {call[0].device.type}"
    words += " under attention dropout" if drops(*call) else ""
    return words + (" (saves the probabilities)" if choice == SDPBackend.MATH else "")
