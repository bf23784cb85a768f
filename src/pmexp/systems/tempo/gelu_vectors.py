"""Computes GELU's bits and its backward on the CPU, each in one pass of the C++ core.

gelu_derivative.py says what it computes. Its square roots are correctly rounded, as those of the Triton
kernels are, and so its bits are theirs.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from pmexp.packed_dropout import ops
from pmexp.packed_dropout.cpu import Core, LineTable
from pmexp.systems.tempo.gelu_derivative import CELLS, LARGEST_SQUARE, NEARLY_0, Form, argmin, table

DTYPES_OF_KERNELS = (torch.float32, torch.float16, torch.bfloat16)


class Vectors:
    """The kernels of one instruction set; see gelu_kernels for the functions of the same names."""

    def __init__(self, core: Core) -> None:
        self._core, self.name = core, core.name

    def falling_bits(self, x: Tensor, form: Form) -> Tensor:
        return self._core.below(x, argmin(form, x.dtype))

    def gelu_backward(self, grad: Tensor, y: Tensor, packed: Tensor, form: Form) -> Tensor:
        return self._core.gelu_backward(grad.to(y.dtype), y, packed, _curve(form)[0]).to(grad.dtype)


def vectors() -> Vectors | None:
    """Returns the kernels of the core that runs on this CPU; None where the torch reference does."""
    core = ops.cpu_core()
    return None if core is None else Vectors(core)


@cache
def _curve(form: Form) -> tuple[LineTable, Any]:
    """Returns the table as the core takes it, and what has to live as long."""
    curve = table(form, torch.device("cpu"), torch.float32)
    lines = torch.stack((curve.intercept, curve.slope), dim=1).contiguous()
    numbers = (curve.minimum, curve.q0, curve.first, curve.cells_a_unit, NEARLY_0, LARGEST_SQUARE, CELLS)
    return LineTable(*numbers, lines.data_ptr()), lines
