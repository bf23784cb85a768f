"""Reaches the dropout inside F.scaled_dot_product_attention where torch computes it by its math kernel.

That kernel, which the CPU takes for any attention that drops, is the eager formula in one operator, and keeps
for backward the probabilities, the mask and the dropped probabilities. Here the formula runs step by step,
with the kernel's numbers bit for bit, so that F.dropout in it can mean another dropout. A fused kernel, as
CUDA takes for most attention, draws inside and keeps none of the three: it stays, and the report says so.
"""

import math
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pmexp.packed_dropout.kernel_memory import kept_by_attention
from pmexp.packed_dropout.recompute import dtype_in_matmul
from pmexp.packed_dropout.report import MATH, ReplacementReport
from pmexp.packed_dropout.transforms import transforms_active

_NARROW = (torch.float16, torch.bfloat16)


@dataclass
class AttentionDropout:
    """Holds what the dropout of F.scaled_dot_product_attention means in the forward of the module `name`."""

    dropout: nn.Module
    report: ReplacementReport
    name: str

    def reaches(self, *args: Any, **kwargs: Any) -> bool:
        """Whether torch's math kernel would compute a call with these arguments, which are `as_called`.

        The report notes the kernel; not of a compiled call, whose trace runs no code of ours later.
        """
        if _refused(*args):
            return False
        kernel = kernel_of(*args, **kwargs)
        if not torch.compiler.is_compiling() and self.report.attention.get(self.name) != kernel:
            query: Tensor = args[0]
            keeps = "" if kernel.startswith(MATH) else kept_by_attention(query.device, query.dtype)
            self.report.attention_ran(self.name, kernel, keeps)
        return kernel.startswith(MATH)


def as_called(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments as the operator gets them: autocast casts the floating-point tensors."""
    tensors = (query, key, value, attn_mask)
    cast = (tensor if tensor is None else tensor.to(dtype_in_matmul(tensor)) for tensor in tensors)
    return (*cast, dropout_p, is_causal), options


def drops(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    *_: Any,
    **__: Any,
) -> bool:
    """Whether a call with these arguments drops something."""
    return dropout_p > 0.0


def kernel_of(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> str:
    """Returns which kernel of torch computes attention for these arguments, and on which device."""
    device, tensors = query.device.type, [t for t in (query, key, value, attn_mask) if t is not None]
    if any(tensor.is_nested or is_traceable_wrapper_subclass(tensor) for tensor in tensors):
        return f"kernel for {type(query).__name__} or nested tensors on {device}"
    if torch.compiler.is_compiling() or transforms_active():  # neither knows the choice as an operator
        return f"{MATH} on cpu" if device == "cpu" else f"fused or math kernel on {device}"
    options = {"scale": scale, "enable_gqa": enable_gqa}
    choice = chosen_backend(query, key, value, attn_mask, dropout_p, is_causal, **options)
    name = MATH if choice is SDPBackend.MATH else f"{choice.name.lower().replace('_', ' ')} kernel"
    return f"{name} on {device}"


def chosen_backend(*args: Any, **options: Any) -> SDPBackend:
    """Returns the kernel for a call `as_called`; torch chooses by the same function, on every device."""
    choose: Any = torch._fused_sdp_choice
    return SDPBackend(choose(*args, **options))


def by_math_kernel(*args: Any, **options: Any) -> bool:
    """Whether torch computes a call with these arguments, which are `as_called`, by its math kernel."""
    return not _refused(*args) and kernel_of(*args, **options).startswith(MATH)


def _refused(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, is_causal: bool
) -> bool:
    """Whether torch refuses these arguments, which its own words then say."""
    if any(t.dtype != query.dtype or t.device != query.device for t in (key, value)):
        return True
    if min(query.dim(), key.dim(), value.dim()) < 2:
        return True
    return mask is not None and (is_causal or mask.dtype not in (torch.bool, torch.float32, query.dtype))


def math_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Computes F.scaled_dot_product_attention of these arguments as torch's math kernel does, bit for bit.

    They are `as_called`. Dropout is a call of F.dropout on the probabilities, (..., queries, keys), which are
    float32 where query, key and value are narrower, unless
    `torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp` was set.
    """
    dtype, mask = query.dtype, attn_mask
    with torch.autocast(query.device.type, enabled=False):
        if is_causal:
            mask = query.new_ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        if mask is not None and mask.dtype is torch.bool:
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -math.inf)
        if dtype in _NARROW and not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed():
            query, key, value = query.float(), key.float(), value.float()
        if enable_gqa:
            heads = query.shape[-3]
            key, value = (t.repeat_interleave(heads // t.shape[-3], -3) for t in (key, value))
        # Queries and keys take half of the factor each, which keeps their product in range.
        half = math.sqrt(1.0 / math.sqrt(query.shape[-1]) if scale is None else abs(scale))
        sign = -1.0 if scale is not None and scale < 0.0 else 1.0
        scores = torch.matmul(query * (sign * half), key.transpose(-2, -1) * half)
        if mask is not None:
            scores = scores.add(mask).to(scores.dtype) if transforms_active() else scores.add_(mask)
        probabilities = torch.ops.aten._safe_softmax(scores, -1)
        del scores
        probabilities = F.dropout(probabilities, dropout_p)
        return torch.matmul(probabilities, value).to(dtype)


def _never(*_: Any) -> bool:
    return False


# torch's own code of multi-head attention. It calls dropout or attention, but asks first whether a
# TorchFunctionMode is around, and then hands itself to the mode as one function: here it never asks.
multi_head_attention_forward = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": _never},
    argdefs=F.multi_head_attention_forward.__defaults__,
)
