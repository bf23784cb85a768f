"""The registered operators pass torch's own checks, and their derivatives are those of the mask."""

import pytest
import torch
from torch import Tensor

from core_cases import each_width, needs_core, values
from pmexp.packed_dropout import functional, ops, packed_dropout
from pmexp.packed_dropout.options import Options

pytestmark = needs_core


@each_width
def test_opcheck(bits: int) -> None:
    x, seed = values((3, 37), torch.float32), torch.tensor([5])
    _, packed = ops.packed_dropout(x, seed, 0.3, bits)
    torch.library.opcheck(torch.ops.pmexp.packed_dropout.default, (x, seed, 0.3, bits))
    torch.library.opcheck(torch.ops.pmexp.packed_dropout.default, (x.t(), seed, 0.3, bits))
    torch.library.opcheck(torch.ops.pmexp.apply_packed_mask.default, (x, packed, 0.3, bits))
    torch.library.opcheck(torch.ops.pmexp.pack_bits.default, (x > 0, bits))
    torch.library.opcheck(torch.ops.pmexp.unpack_bits.default, (packed, [3, 37], bits))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("retain_graph", [False, True])
def test_gradients_are_the_masked_gradients(create_graph: bool, retain_graph: bool) -> None:
    x = values((9, 41), torch.float64).requires_grad_()
    torch.manual_seed(3)
    y = packed_dropout(x, 0.3)
    kept_scale = y.detach() / x.detach()
    keep_graph = retain_graph or create_graph
    for _ in range(2 if keep_graph else 1):
        (grad,) = torch.autograd.grad(
            y, x, torch.full_like(y, 2.0), retain_graph=keep_graph, create_graph=create_graph
        )
        torch.testing.assert_close(grad, 2.0 * kept_scale)
        assert grad.requires_grad is False  # linear in the gradient, which needs none here


def test_double_backward() -> None:
    x = values((30,), torch.float64).requires_grad_()
    seed = torch.tensor([8])

    def drop(x: Tensor) -> Tensor:
        options = Options(0.4, 1, True, "philox", 0.0)
        return functional.dropout_and_bits(x, seed, options)[0]

    assert torch.autograd.gradcheck(drop, (x,))
    assert torch.autograd.gradgradcheck(drop, (x,))
