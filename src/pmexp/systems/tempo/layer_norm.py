"""Defines in-place LayerNorm, which keeps its output and each row's 1/std in place of its input.

The output costs nothing where a linear layer behind it saves the very same tensor, as in every transformer
block; a residual sum beside it saves nothing. (Andoorveedu et al., "Tempo", NeurIPS 2022.)

Backward rebuilds the normalised values h = (y - bias) / weight. On CUDA, and in float64, it makes the centred
input h * std of them and is then torch's own; on the CPU it is one pass of the C++ core, in float32 whatever
the dtype. A saved y is off by at most u |y|, with u the unit roundoff of its dtype, so h comes back with an
error of

    |error| <= 2 u (|h| + |bias / weight|)    and with it    2 u (|h| + RATIO) at most

since where |bias| > RATIO |weight|, the weight of 0 among them, the output says too little of h: of these
columns, few or none in a trained model, the centred input is kept as well. Which columns they are is found at
every forward of a model, since weights move: kept_columns.py.

Under autocast a linear layer that has to cast this output saves the cast and not the output. Then the input
is kept, as torch keeps it, and nothing is won or lost: the cast in its place would come back with the cast's
u, 2^-9 for bfloat16, where autocast leaves LayerNorm float32's 2^-24. With fp32 weights that is every
LayerNorm of a transformer: on CUDA autocast runs it in float32, on the CPU in its input's dtype, and a
residual sum that begins with float32 embeddings is float32. The same under torch.compile, which chooses
itself what to save, and cannot follow a number of columns that depends on data, and while a CUDA graph is
captured, which repeats what was saved when weights have moved. `InplaceLayerNorm.keeps` says what was done.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function

from pmexp.packed_dropout import ops
from pmexp.packed_dropout.cpu import Core
from pmexp.systems.tempo.gelu_vectors import DTYPES_OF_KERNELS
from pmexp.systems.tempo.kept_columns import ColumnSearch, kept_columns

FindColumns = Callable[[torch.dtype], Tensor]  # takes the dtype of the output


class InplaceLayerNorm(nn.LayerNorm):
    """nn.LayerNorm that computes by `inplace_layer_norm`; in eval mode nn.LayerNorm itself.

    search: what finds the columns of all norms of a model; None where this one finds its own at each call.
    keeps: what the last forward in training kept for backward, in words; None before the first.
    """

    search: ColumnSearch | None = None
    keeps: str | None = None

    @classmethod
    def like(cls, stock: nn.LayerNorm, search: ColumnSearch | None = None) -> "InplaceLayerNorm":
        """Returns an in-place LayerNorm that shares the parameters of `stock`."""
        module = cls(stock.normalized_shape, stock.eps, elementwise_affine=False)
        module.elementwise_affine = stock.elementwise_affine
        module.weight, module.bias = stock.weight, stock.bias
        module.search = search
        return module.train(stock.training)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        find = partial(self.search.columns, self) if self.search else None
        y = inplace_layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps, find)
        self.keeps = _what_is_kept(y)
        return y


def inplace_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    find_columns: FindColumns | None = None,
) -> Tensor:
    """Returns torch.nn.functional.layer_norm, saving its output and 4 bytes a row in place of its input.

    The output is F.layer_norm's, bit for bit. It has no second derivative.

    Args:
        find_columns: gives kept_columns of `weight` and `bias`. None looks for them and waits for the device.
    """
    tensors = [t for t in (input, weight, bias) if t is not None]
    if has_torch_function(tensors):
        options = (input, normalized_shape, weight, bias, eps, find_columns)
        result: Tensor = handle_torch_function(inplace_layer_norm, tensors, *options)
        return result
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return F.layer_norm(input, list(normalized_shape), weight, bias, eps)
    if not any(t.requires_grad for t in tensors):
        return F.layer_norm(input, list(normalized_shape), weight, bias, eps)
    find = find_columns or partial(kept_columns, weight, bias)
    return cast(Tensor, _LayerNorm.apply(input, list(normalized_shape), weight, bias, eps, find))


class _LayerNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shape: list[int],
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        find_columns: FindColumns,
    ) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.shape, ctx.dtype, ctx.from_output = shape, x.dtype, _is_read_as_it_is(y) and not _is_captured(y)
        if not ctx.from_output:
            ctx.save_for_backward(x, mean, rstd, weight, bias)
            return y
        columns = kept = None
        if weight is not None:
            to_keep = find_columns(y.dtype)
            if to_keep.numel():
                columns = to_keep
                kept = (_rows(x, shape)[:, columns] - mean.reshape(-1, 1)).to(y.dtype)
        ctx.save_for_backward(y, rstd, weight, bias, columns, kept)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph=True: in-place LayerNorm has no second derivative; "
                "leave tempo out of system.parts"
            )
        if ctx.from_output:
            y, rstd, weight, bias, columns, kept = ctx.saved_tensors
            if _core_for(y):
                return _by_core(ctx, grad, y, rstd, weight, bias, columns, kept)
            x, mean = _centred_input(ctx.shape, y, rstd, weight, bias, columns, kept), torch.zeros_like(rstd)
        else:
            x, mean, rstd, weight, bias = ctx.saved_tensors
            x = x.to(grad.dtype)
        needed = [ctx.needs_input_grad[0], ctx.needs_input_grad[2], ctx.needs_input_grad[3]]
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
            grad, x, ctx.shape, mean, rstd, weight, bias, needed
        )
        return grad_x if grad_x is None else grad_x.to(ctx.dtype), None, grad_weight, grad_bias, None, None


def _core_for(y: Tensor) -> Core | None:
    """Returns the core that computes backward from an output like `y`; None where torch's operators do."""
    return ops.cpu_core() if y.is_cpu and y.dtype in DTYPES_OF_KERNELS else None


def _by_core(ctx: Any, grad: Tensor, y: Tensor, *saved: Any) -> tuple[Tensor | None, ...]:
    """saved: what is behind y in what forward saves."""
    _, weight, bias, *_ = saved
    is_direct = isinstance(ops.operators_for(grad, y), Core)  # past torch's dispatcher, which takes 10 us
    backward: Any = _layer_norm_backward if is_direct else _backward_from_output
    grad_x, of_parameters = backward(grad, y, *saved, ctx.shape)
    grad_weight, grad_bias = (
        gradient.to(parameter.dtype).view(ctx.shape) if parameter is not None and needed else None
        for gradient, parameter, needed in zip(
            of_parameters, (weight, bias), ctx.needs_input_grad[2:4], strict=True
        )
    )
    return grad_x.to(ctx.dtype), None, grad_weight, grad_bias, None, None


_library = torch.library.Library("pmexp", "FRAGMENT")
_library.define(
    "layer_norm_backward_from_output(Tensor grad, Tensor y, Tensor rstd, Tensor? weight, Tensor? bias, "
    "Tensor? columns, Tensor? kept, SymInt[] shape) -> (Tensor, Tensor)"
)


@torch.library.impl(_library, "layer_norm_backward_from_output", "CPU")
def _layer_norm_backward(
    grad: Tensor,
    y: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    columns: Tensor | None,
    kept: Tensor | None,
    shape: list[int],
) -> tuple[Tensor, Tensor]:
    """Returns the input's gradient in y's shape and dtype, and weight's and bias's, float32 (2, columns)."""
    core = _core_for(y)
    assert core is not None
    rows, outputs = _rows(grad.to(y.dtype), shape), _rows(y, shape)
    scale, shift = (None if parameter is None else parameter.reshape(-1) for parameter in (weight, bias))
    grad_x, of_parameters = core.layer_norm_backward(
        rows, outputs, rstd.reshape(-1), scale, shift, columns, kept
    )
    return grad_x.view(y.shape), of_parameters.clone()


@torch.library.register_fake("pmexp::layer_norm_backward_from_output")
def _layer_norm_backward_fake(grad: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    columns = torch.Size(rest[-1]).numel()
    return torch.empty_like(y, memory_format=torch.contiguous_format), y.new_empty(
        (2, columns), dtype=torch.float32
    )


_backward_from_output = torch.ops.pmexp.layer_norm_backward_from_output.default


def _what_is_kept(y: Tensor) -> str:
    if torch.compiler.is_compiling():
        return "stock under torch.compile"
    if not _is_read_as_it_is(y):
        return f"keeps its input, since autocast casts its {str(y.dtype).removeprefix('torch.')} output"
    if _is_captured(y):
        return "keeps its input in a captured CUDA graph"
    core = _core_for(y)
    return f"keeps its output; backward in one pass by {core.name}" if core else "keeps its output"


def _is_captured(y: Tensor) -> bool:
    return y.is_cuda and torch.cuda.is_current_stream_capturing()


def _is_read_as_it_is(y: Tensor) -> bool:
    """Whether a linear layer that takes `y` saves this tensor, and not a cast of it."""
    kind = y.device.type
    return not torch.is_autocast_enabled(kind) or y.dtype == torch.get_autocast_dtype(kind)


def _centred_input(
    shape: list[int],
    y: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    columns: Tensor | None,
    kept: Tensor | None,
) -> Tensor:
    """Returns the input less its mean in y's shape and dtype, computed in float32, in float64 where y is."""
    rows = _rows(y, shape).to(torch.promote_types(y.dtype, torch.float32), copy=True)
    if bias is not None:
        rows.sub_(bias.reshape(-1))
    if weight is not None:
        rows.div_(weight.reshape(-1))
    rows.div_(rstd.reshape(-1, 1))
    if columns is not None and kept is not None:
        rows.index_copy_(1, columns, kept.to(rows.dtype))
    return rows.to(y.dtype).view(y.shape)


def _rows(x: Tensor, shape: list[int]) -> Tensor:
    return x.reshape(-1, torch.Size(shape).numel())
