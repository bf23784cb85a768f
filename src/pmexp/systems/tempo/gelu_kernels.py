"""Computes GELU's bits and its backward on CUDA, a pass each, by Triton kernels and their launchers alone.

gelu_derivative.py says what they compute. The bits are those of its torch operators on CUDA, and on the CPU
where that has the same square roots: they are correctly rounded, and no product is fused with a sum. Inputs
are float32, float16 or bfloat16.

A program takes _ROWS bytes of the mask and eight neighbouring elements for each.
"""

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from pmexp.systems.tempo.gelu_derivative import CELLS, LARGEST_SQUARE, NEARLY_0, Form, argmin, table

name = f"triton {triton.__version__}"

_ROWS = 256  # with 4 warps a program has 2048 elements, a thread 16
_OPTIONS = {
    "num_warps": 4,
    "enable_fp_fusion": False,  # a fused multiply-add would round once where the definition rounds twice
}
_NEARLY_0 = tl.constexpr(NEARLY_0)
_LARGEST_SQUARE = tl.constexpr(LARGEST_SQUARE)
_LAST_CELL = tl.constexpr(CELLS - 1)


@triton.jit
def _elements(ROWS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return row, row[:, None] * 8 + tl.arange(0, 8)[None, :]


@triton.jit
def _falling_kernel(x, packed, numel, argmin, ROWS: tl.constexpr):
    row, element = _elements(ROWS)
    inside = element < numel
    falling = (tl.load(x + element, mask=inside).to(tl.float32) < argmin) & inside
    byte = tl.sum(falling.to(tl.uint32) << tl.arange(0, 8)[None, :].to(tl.uint32), axis=1)
    tl.store(packed + row, byte.to(tl.uint8), mask=row * 8 < numel)


@triton.jit
def _backward_kernel(
    grad, y, packed, lines, out, numel, minimum, q0, first, cells_a_unit, ROWS: tl.constexpr
):  # fmt: skip
    """out = grad * D(y). The low half of each int64 in `lines` is a cell's intercept, the high its slope."""
    row, element = _elements(ROWS)
    inside = element < numel
    value = tl.load(y + element, mask=inside, other=0.0).to(tl.float32)
    byte = tl.load(packed + row, mask=row * 8 < numel, other=0)
    falling = (byte[:, None] >> tl.arange(0, 8)[None, :].to(tl.uint8)) & 1
    s = tl.sqrt_rn(tl.minimum(tl.maximum(value - minimum, _NEARLY_0), _LARGEST_SQUARE))
    q = tl.sqrt_rn(tl.minimum(tl.maximum(-value, _NEARLY_0), -minimum))
    v = tl.where(falling != 0, s + (q - 2.0 * s - q0), s)
    cell = ((v - first) * cells_a_unit).to(tl.int32)
    line = tl.load(lines + tl.minimum(tl.maximum(cell, 0), _LAST_CELL))
    intercept = line.to(tl.int32).to(tl.float32, bitcast=True)
    slope = (line >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    derivative = tl.where(value == value, intercept + slope * v, value)  # a NaN stays one
    product = tl.load(grad + element, mask=inside, other=0.0).to(tl.float32) * derivative
    tl.store(out + element, product.to(out.dtype.element_ty), mask=inside)


def falling_bits(x: Tensor, form: Form) -> Tensor:
    """See gelu.falling_bits: uint8, (ceil(numel / 8),)."""
    packed = torch.empty(-(-x.numel() // 8), dtype=torch.uint8, device=x.device)
    _run(_falling_kernel, x.contiguous(), packed, x.numel(), argmin(form, x.dtype))
    return packed


def gelu_backward(grad: Tensor, y: Tensor, packed: Tensor, form: Form) -> Tensor:
    """See gelu.gelu_backward: grad * GELU', of grad's shape and dtype."""
    out = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
    curve = table(form, torch.device("cpu"), torch.float32)
    scalars = (y.numel(), curve.minimum, curve.q0, curve.first, curve.cells_a_unit)
    dense = (grad.contiguous(), y.contiguous(), packed, _lines(form, y.device), out)
    _run(_backward_kernel, *dense, *scalars)
    return out


def _run(kernel: Any, first: Tensor, *arguments: Any) -> None:
    with torch.cuda.device_of(first):
        kernel[(triton.cdiv(first.numel(), 8 * _ROWS),)](first, *arguments, _ROWS, **_OPTIONS)


@cache
def _lines(form: Form, device: torch.device) -> Tensor:
    """Returns the table's float32 pairs, (CELLS,) int64, so that a cell is one load.

    They are made on the CPU, so that every stream can use them.
    """
    curve = table(form, torch.device("cpu"), torch.float32)
    return torch.stack((curve.intercept, curve.slope), dim=1).view(torch.int64).view(-1).to(device)
