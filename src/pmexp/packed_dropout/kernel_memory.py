"""Measures what kernels that drop inside keep for backward, on this torch and a device.

No dropout of ours can be put into them, and what they keep differs by device, dtype and release of torch. So
autograd is asked, by tiny calls, once in a process for each of them.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import _disable_current_modes

from pmexp.packed_dropout.transforms import transforms_active

_RATE = 0.5
_TOKENS, _WIDTH = 128, 8  # a query has a sixteenth of the attention's elements
_STEPS, _BATCH, _HIDDEN = 16, 2, 8
_RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)


def kept_by_attention(device: torch.device, dtype: torch.dtype) -> str:
    """Returns what F.scaled_dot_product_attention with dropout keeps for backward, as words; see `_said`."""
    return _said(attention_bytes, device, dtype)


def kept_by_recurrence(module: nn.Module) -> str:
    """Returns what torch's recurrent layer of this kind keeps more for backward with dropout than without.

    On the device of its weights and in their dtype; on the CPU for weights without memory.
    """
    kind = next((kind for kind in _RECURRENT if isinstance(module, kind)), None)
    if kind is None:
        return ""
    weight = next((each for each in module.parameters() if each.is_floating_point()), torch.empty(0))
    device = torch.device("cpu") if weight.is_meta else weight.device
    return _said(lambda *where: recurrent_bytes(kind, *where), device, weight.dtype)


def _said(
    measure: Callable[[torch.device, torch.dtype], float], device: torch.device, dtype: torch.dtype
) -> str:
    """Words for the bytes an element; none where nothing can be measured.

    That is under a transform, while a CUDA graph is captured, and for a dtype without a kernel.
    """
    if transforms_active():
        return ""
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return ""
    try:
        kept = measure(device, dtype)
    except (RuntimeError, NotImplementedError):
        return ""
    name = str(dtype).removeprefix("torch.")
    return f" (measured: it keeps {kept:g} bytes an element for backward, on {device.type} in {name})"


@cache
def attention_bytes(device: torch.device, dtype: torch.dtype) -> float:
    """Bytes for each element of the attention, (queries, keys), in storages that are no smaller than it.

    Raises RuntimeError where there is no kernel for it.
    """
    elements = _TOKENS * _TOKENS

    def attend() -> Tensor:
        shape = (1, 1, _TOKENS, _WIDTH)
        query, key, value = (torch.ones(shape, device=device, dtype=dtype).requires_grad_() for _ in range(3))
        return F.scaled_dot_product_attention(query, key, value, dropout_p=_RATE)

    return sum(size for size in _saved(attend, device) if size >= elements) / elements


@cache
def recurrent_bytes(kind: Callable[..., nn.RNNBase], device: torch.device, dtype: torch.dtype) -> float:
    """Bytes for each element that passes a dropout between layers, beyond what is kept without dropout.

    Raises RuntimeError where there is no kernel for it.
    """

    def run(p: float) -> int:
        def recur() -> Tensor:
            layers = kind(_WIDTH, _HIDDEN, 2, dropout=p, device=device, dtype=dtype)
            output: Tensor = layers(torch.ones(_STEPS, _BATCH, _WIDTH, device=device, dtype=dtype))[0]
            return output

        return sum(_saved(recur, device))

    return (run(_RATE) - run(0.0)) / (_STEPS * _BATCH * _HIDDEN)


def _saved(call: Callable[[], Tensor], device: torch.device) -> list[int]:
    """Bytes of each storage that autograd saves in a call, which leaves no trace in generators and modes."""
    sizes: dict[int, int] = {}
    kept: list[Tensor] = []  # a freed storage's address could come again

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with ExitStack() as contexts:
        contexts.enter_context(_disable_current_modes())  # some make other tensors; routes would come here
        contexts.enter_context(torch._C.DisableTorchFunction())
        contexts.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        contexts.enter_context(torch.inference_mode(False))
        contexts.enter_context(torch.enable_grad())
        contexts.enter_context(torch.autocast(device.type, enabled=False))
        contexts.enter_context(saved_tensors_hooks(note, lambda tensor: tensor))
        call()
    return list(sizes.values())
