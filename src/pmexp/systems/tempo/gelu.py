"""Defines in-place GELU, which keeps its output and a bit an element where stock GELU keeps its input.

The output costs nothing: a linear layer behind it saves the very same tensor. (Andoorveedu et al., "Tempo",
NeurIPS 2022, from packed bits; how the derivative comes back, and how exactly: gelu_derivative.py.)
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import handle_torch_function, has_torch_function_unary
from transformers import activations

from pmexp.packed_dropout import cuda_backend, ops
from pmexp.packed_dropout.routed_modules import original_class
from pmexp.systems.tempo.gelu_derivative import ARGMIN, Form, derivative_from_output
from pmexp.systems.tempo.gelu_vectors import DTYPES_OF_KERNELS, vectors

# These functions compute the two forms; their way of computing, and so the output's bits, stay their own.
_FORMS: dict[type[nn.Module], Form] = {
    activations.GELUActivation: "erf",
    activations.GELUTanh: "tanh",
    activations.NewGELUActivation: "tanh",
    activations.FastGELUActivation: "tanh",
    activations.AccurateGELUActivation: "tanh",
}

# Backward goes by stretches of so many elements, a multiple of 8: six float32 temporaries of a stretch fit
# a CPU thread's cache, those of the whole do not; on other devices they fit the memory to spare.
_STRETCH_OF_A_THREAD = 1 << 16
_STRETCH_OF_A_DEVICE = 1 << 22


def form_of(module: nn.Module) -> Form | None:
    """Returns which form of GELU `module` computes; None where it computes neither."""
    if original_class(module) is nn.GELU:
        return "tanh" if module.approximate == "tanh" else "erf"
    return _FORMS.get(original_class(module))


class InplaceGELU(nn.Module):
    """`stock`, a GELU module, whose backward needs its output and ceil(numel / 8) bytes.

    The output is `stock`'s, bit for bit. The gradient is off by the error of gelu_derivative.py. It has no
    second derivative: near the minimum the way back from the output has none.

    In eval mode and where nothing needs a gradient this is `stock`.

    input_was: device and dtype of the last input in training; None before the first. `backward_of` says what
    they make of backward.

    Raises:
        ValueError: `stock` is no GELU of a form that `form_of` knows.
    """

    input_was: tuple[torch.device, torch.dtype] | None = None

    def __init__(self, stock: nn.Module) -> None:
        super().__init__()
        form = form_of(stock)
        if form is None:
            raise ValueError(f"stock: {type(stock).__name__} is no erf or tanh GELU")
        self.stock, self.form = stock, form
        self.train(stock.training)

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and input.requires_grad and torch.is_grad_enabled()):
            return cast(Tensor, self.stock(input))
        self.input_was = (input.device, input.dtype)
        return inplace_gelu(input, self.stock, self.form)


def backward_of(device: torch.device, dtype: torch.dtype) -> str:
    """Says in words what computes backward for such inputs."""
    kernels = kernels_for(device, dtype)
    return f"backward in one pass by {kernels.name}" if kernels else f"backward by torch on {device.type}"


def inplace_gelu(input: Tensor, function: Callable[[Tensor], Tensor], form: Form) -> Tensor:
    """Returns function(input), a GELU of the given form; see InplaceGELU.

    Args:
        input: any shape and layout, floating-point.
    """
    if has_torch_function_unary(input):
        result: Tensor = handle_torch_function(inplace_gelu, (input,), input, function, form)
        return result
    return cast(Tensor, _InplaceGELU.apply(input, function, form))


class _InplaceGELU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], form: Form) -> Tensor:
        y = function(x)
        ctx.save_for_backward(y, falling_bits(x, form))
        ctx.form, ctx.dtype = form, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "create_graph=True: in-place GELU has no second derivative; leave tempo out of system.parts"
            )
        y, packed = ctx.saved_tensors
        return gelu_backward(grad, y, packed, ctx.form).to(ctx.dtype), None, None


def kernels_for(device: torch.device, dtype: torch.dtype) -> Any | None:
    """Triton's kernels or the CPU core's for such tensors, None where torch's operators serve."""
    if dtype not in DTYPES_OF_KERNELS:
        return None
    if device.type == "cpu":
        return vectors()
    if device.type != "cuda" or not cuda_backend.has_kernels():
        return None
    from pmexp.systems.tempo import gelu_kernels  # it imports Triton

    return gelu_kernels


_library = torch.library.Library("pmexp", "FRAGMENT")
for _signature in (
    "gelu_falling_bits(Tensor x, str form) -> Tensor",
    "gelu_backward_from_output(Tensor grad, Tensor y, Tensor packed, str form) -> Tensor",
):
    _library.define(_signature, tags=(torch.Tag.pt2_compliant_tag,))


@torch.library.impl(_library, "gelu_falling_bits", "CompositeExplicitAutograd")
def _falling_bits(x: Tensor, form: Form) -> Tensor:
    """One bit an input, set where it is below the input of GELU's minimum: uint8, (ceil(numel / 8),)."""
    if kernels := kernels_for(x.device, x.dtype):
        return cast(Tensor, kernels.falling_bits(x, form))
    falling = x < ARGMIN[form]
    return cast(Tensor, ops.operators_for(falling).pack_bits(falling, 1))


@torch.library.register_fake("pmexp::gelu_falling_bits")
def _falling_bits_fake(x: Tensor, form: str) -> Tensor:
    return x.new_empty((x.numel() + 7) // 8, dtype=torch.uint8)


@torch.library.impl(_library, "gelu_backward_from_output", "CompositeExplicitAutograd")
def _gelu_backward(grad: Tensor, y: Tensor, packed: Tensor, form: Form) -> Tensor:
    """grad * GELU' in y's shape, computed in float32, in float64 where y is."""
    if kernels := kernels_for(y.device, y.dtype):
        return cast(Tensor, kernels.gelu_backward(grad, y, packed, form))
    return backward_by_torch(grad, y, packed, form)


def backward_by_torch(grad: Tensor, y: Tensor, packed: Tensor, form: Form) -> Tensor:
    """Returns the same by torch's operators, in stretches."""
    flat_y, flat_grad = y.reshape(-1), grad.reshape(-1)
    out = torch.empty_like(flat_grad)
    wide = torch.promote_types(y.dtype, torch.float32)
    stretch = _STRETCH_OF_A_THREAD * torch.get_num_threads() if y.is_cpu else _STRETCH_OF_A_DEVICE
    bits = ops.operators_for(packed)
    for start in range(0, flat_y.numel(), stretch):
        here = slice(start, start + stretch)
        outputs = flat_y[here].to(wide)
        falling = bits.unpack_bits(packed[start // 8 : (start + stretch) // 8], outputs.shape, 1)
        torch.mul(flat_grad[here], derivative_from_output(outputs, falling, form), out=out[here])
    return out.view(grad.shape)


@torch.library.register_fake("pmexp::gelu_backward_from_output")
def _gelu_backward_fake(grad: Tensor, y: Tensor, packed: Tensor, form: str) -> Tensor:
    return grad.new_empty(grad.shape)


falling_bits = torch.ops.pmexp.gelu_falling_bits.default
gelu_backward = torch.ops.pmexp.gelu_backward_from_output.default
