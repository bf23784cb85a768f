"""Has fake tensors of the CPU save and allocate what CUDA's operators do.

Where ATen takes another way on CUDA than on the CPU, the memory of a step differs. In the context of
`cuda_semantics()` these operators of CPU tensors take CUDA's way:

    dropout                       native_dropout: a Boolean mask, 1 byte an element
    scaled_dot_product_attention  a fused kernel: saves q, k, v, the output and the row sums, no S x S tensor
    autocast                      the operators that CUDA runs in float32 and the CPU does not

Casts of weights to bf16 are cached by autocast itself, as on CUDA.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.attention import SDPBackend

from pmexp.simulation.internals import overridden_operators, tree_map_only

aten = torch.ops.aten
# From "CUDA Ops that autocast to float32" in the documentation of autocast: those that the CPU does not cast.
_IN_FP32 = ("layer_norm", "group_norm", "exp", "log", "log1p", "pow.Tensor_Scalar", "reciprocal", "rsqrt")
_WITH_FP32_RESULT = ("softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "cumsum")


@contextmanager
def cuda_semantics() -> Iterator[None]:
    """Opens a context in which operators of CPU tensors take CUDA's way. It is process-wide and for fake
    tensors only: a real CPU tensor would get garbage from attention."""
    with overridden_operators() as library:
        library.impl("dropout", _dropout, "AutogradCPU")
        library.impl("scaled_dot_product_attention", _attention, "AutogradCPU")
        library.impl("_fused_sdp_choice", _fused, "AutogradCPU")
        for name in _IN_FP32:
            library.impl(name, _in_fp32(_overload(name)), "AutocastCPU")
        for name in _WITH_FP32_RESULT:
            library.impl(name, _with_fp32_result(_overload(name)), "AutocastCPU")
        yield


def _overload(name: str) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    return cast(Callable[..., Any], getattr(getattr(aten, packet), overload or "default"))


def _dropout(input: Tensor, p: float, train: bool) -> Tensor:
    if not train or p == 0.0 or input.numel() == 0:
        return input
    return torch.native_dropout(input, p, True)[0] if p < 1.0 else input * 0.0


def _in_fp32(op: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, _widened, (args, kwargs))
        with torch.autocast("cpu", enabled=False):
            return op(*args, **kwargs)

    return kernel


def _with_fp32_result(op: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(input: Tensor, *args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
        names = [argument.name for argument in cast(Any, op)._schema.arguments]
        if len(args) >= names.index("dtype"):  # softmax takes it by position
            *args_before, dtype = args
            args = tuple(args_before)
        wide = torch.float32 if dtype is None and _widened(input) is not input else dtype
        with torch.autocast("cpu", enabled=False):
            return op(input, *args, dtype=wide, **kwargs)

    return kernel


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _fused(*_: Any, **__: Any) -> int:
    return SDPBackend.EFFICIENT_ATTENTION.value


def _attention(
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
    bias = attn_mask
    if attn_mask is not None and attn_mask.dtype is torch.bool:  # the kernel adds a bias
        bias = attn_mask.new_empty(attn_mask.shape, dtype=query.dtype)
    return cast(Tensor, _FusedAttention.apply(query, key, value, bias))


class _FusedAttention(Function):
    """Memory of FlashAttention-2 and of the memory-efficient kernel: (batch, heads, length, head size) each.

    In 16 bits backward sums the gradient of q in float32.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        output = _like_heads(query, value.shape[-1])
        row_sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, bias, output, row_sums)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *_, row_sums = ctx.saved_tensors
        scratch = [torch.empty_like(row_sums)]
        if query.dtype is not torch.float32:
            scratch.append(query.new_empty(query.shape, dtype=torch.float32))
        return *(_like_heads(x, x.shape[-1]) for x in (query, key, value)), None


def _like_heads(x: Tensor, size: int) -> Tensor:
    """(batch, heads, length, size) in the layout of the kernels, which hold (batch, length, heads, size)."""
    batch, heads, length, _ = x.shape
    return x.new_empty((batch, length, heads, size)).transpose(1, 2)
