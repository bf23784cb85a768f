"""Has fake tensors of the CPU save and allocate what CUDA's operators do.

Where ATen takes another way on CUDA than on the CPU, the memory of a step differs. In the context of
`cuda_semantics()` these operators of CPU tensors take CUDA's way:

    dropout                       native_dropout: a Boolean mask, 1 byte an element
    scaled_dot_product_attention  a fused kernel: saves q, k, v, the output and the row sums, no S x S tensor
    rms_norm                      a fused kernel: saves its input and a number a row
    softmax, log_softmax          16 bits in and float32 out at once, and the other way in backward
    autocast                      the operators that CUDA runs in float32 and the CPU does not

Casts of weights to bf16 are cached by autocast itself, as on CUDA.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.library import fallthrough_kernel
from torch.nn.attention import SDPBackend
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

from pmexp.simulation.internals import autocast_knows, overridden_operators, tree_map_only

aten = torch.ops.aten
# "CUDA Ops that autocast to float32" in the documentation of autocast: those that the CPU does not cast.
# torch 2.11 has no rms_norm among them.
_IN_FP32 = (
    *(
        "acos",
        "asin",
        "cosh",
        "erfinv",
        "exp",
        "expm1",
        "log",
        "log10",
        "log1p",
        "log2",
        "reciprocal",
        "rsqrt",
    ),
    *("sinh", "tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "logsumexp"),
    *("layer_norm", "native_layer_norm", "rms_norm", "group_norm", "cosine_similarity", "renorm"),
    *("frobenius_norm.dim", "nuclear_norm", "nuclear_norm.dim", "dist", "pdist"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d"),
    *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d"),
    *("upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_trilinear3d"),
    *("upsample_bicubic2d", "_upsample_bicubic2d_aa"),
)
_WITH_FP32_RESULT = (
    *("softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "cumsum", "cumprod"),
    *("linalg_vector_norm", "linalg_matrix_norm", "linalg_matrix_norm.str_ord"),
)
# The CPU casts these, and CUDA runs them in the type of their input.
_AS_THEY_ARE = (
    *("cross_entropy_loss", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
    *("replication_pad3d", "avg_pool3d", "max_pool3d", "adaptive_avg_pool3d", "adaptive_max_pool3d"),
)


@contextmanager
def cuda_semantics(count: Callable[[int], object] = lambda operations: None) -> Iterator[None]:
    """Opens a context in which operators of CPU tensors take CUDA's way. It is process-wide and for fake
    tensors only: a real CPU tensor would get garbage from attention.

    count: is called with the operations of each fused attention, forward or backward, which no
        counter of operators sees.
    """
    with overridden_operators() as library:
        library.impl("dropout", _dropout, "AutogradCPU")
        library.impl("scaled_dot_product_attention", partial(_attention, count), "AutogradCPU")
        library.impl("_fused_sdp_choice", _fused, "AutogradCPU")
        library.impl("_fused_rms_norm", _rms_norm, "AutogradCPU")
        library.impl("softmax.int", _softmax, "AutogradCPU")
        library.impl("log_softmax.int", _log_softmax, "AutogradCPU")
        with warnings.catch_warnings():  # torch warns where its own kernel is overridden
            warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
            for name in _AS_THEY_ARE:
                library.impl(name, fallthrough_kernel, "AutocastCPU")
        for name in filter(autocast_knows, _IN_FP32):
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


def _softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    widens = dtype is torch.float32 and widened(input) is not input
    return cast(Tensor, aten._softmax(input if dtype is None or widens else input.to(dtype), dim, widens))


def _log_softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    if dtype is torch.float32 and widened(input) is not input:
        return cast(Tensor, _WideningLogSoftmax.apply(input))
    return cast(Tensor, aten._log_softmax(input if dtype is None else input.to(dtype), dim, False))


class _WideningLogSoftmax(Function):
    """Memory of CUDA's kernel for 16 bits, which torch's fake tensors have for float16 alone."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        output = torch.empty_like(input, dtype=torch.float32)
        ctx.save_for_backward(output)
        ctx.dtype = input.dtype
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.empty_like(grad, dtype=ctx.dtype)


def _in_fp32(op: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(Tensor, widened, (args, kwargs))
        with torch.autocast("cpu", enabled=False):
            return op(*args, **kwargs)

    return kernel


def _with_fp32_result(op: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(input: Tensor, *args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
        names = [argument.name for argument in cast(Any, op)._schema.arguments]
        if len(args) >= names.index("dtype"):  # softmax takes it by position
            *args_before, dtype = args
            args = tuple(args_before)
        wide = torch.float32 if dtype is None and widened(input) is not input else dtype
        with torch.autocast("cpu", enabled=False):
            return op(input, *args, dtype=wide, **kwargs)

    return kernel


def widened(tensor: Tensor) -> Tensor:
    """The tensor, in float32 where it is of 16 bits."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _fused(*_: Any, **__: Any) -> int:
    return SDPBackend.EFFICIENT_ATTENTION.value


def _attention(
    count: Callable[[int], object],
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
    return cast(Tensor, _FusedAttention.apply(query, key, value, bias, count))


class _FusedAttention(Function):
    """Memory of FlashAttention-2 and of the memory-efficient kernel: (batch, heads, length, head size) each.

    In 16 bits backward sums the gradient of q in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        count: Callable[[int], object],
    ) -> Tensor:
        ctx.count = count
        count(sdpa_flop_count(*_alike(query, key, value)))
        output = _like_heads(query, value.shape[-1])
        row_sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, bias, output, row_sums)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *_, row_sums = ctx.saved_tensors
        ctx.count(sdpa_backward_flop_count(grad.shape, *_alike(query, key, value)))
        scratch = [torch.empty_like(row_sums)]
        if query.dtype is not torch.float32:
            scratch.append(query.new_empty(query.shape, dtype=torch.float32))
        return *(_like_heads(x, x.shape[-1]) for x in (query, key, value)), None, None


def _alike(query: Tensor, key: Tensor, value: Tensor) -> tuple[torch.Size, ...]:
    """The shapes with as many heads of keys and values as of queries, which share them."""
    heads = query.shape[:-2]
    return query.shape, torch.Size((*heads, *key.shape[-2:])), torch.Size((*heads, *value.shape[-2:]))


def _like_heads(x: Tensor, size: int) -> Tensor:
    """(batch, heads, length, size) in the layout of the kernels, which hold (batch, length, heads, size)."""
    batch, heads, length, _ = x.shape
    return x.new_empty((batch, length, heads, size)).transpose(1, 2)


def _rms_norm(
    input: Tensor, normalized_shape: list[int], weight: Tensor | None, eps: float | None
) -> tuple[Tensor, Tensor]:
    rows = input.shape[: input.dim() - len(normalized_shape)]
    return cast(tuple[Tensor, Tensor], _FusedRMSNorm.apply(input, weight, rows))


class _FusedRMSNorm(Function):
    """Memory of CUDA's kernel: it keeps its input and, in float32, what each row is divided by."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor | None, rows: torch.Size) -> tuple[Tensor, Tensor]:
        divisors = input.new_empty((*rows, *[1] * (input.dim() - len(rows))), dtype=torch.float32)
        ctx.mark_non_differentiable(divisors)
        ctx.save_for_backward(input, weight, divisors)
        return torch.empty_like(input), divisors

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        input, weight, _ = ctx.saved_tensors
        return torch.empty_like(input), None if weight is None else torch.empty_like(weight), None
