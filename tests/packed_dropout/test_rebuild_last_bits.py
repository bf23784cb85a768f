"""GELU and SiLU made again have the last bits of the forward, on which threads and layouts tell on the CPU."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pmexp.packed_dropout.rebuild import rebuilding, watching
from rebuilt_operands import DROP, row_by_row

activations = pytest.mark.parametrize(
    "activation",
    [F.gelu, partial(F.gelu, approximate="tanh"), F.silu],
    ids=["gelu", "gelu by tanh", "silu"],
)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def operand(x: Tensor, activation: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """A dropped operand, and a product with it whose gradient it is."""
    dropped = DROP(activation(x))
    weight = torch.ones_like(dropped).requires_grad_()
    return dropped.detach(), (dropped * weight).sum()


def gradient_of_weight(product: Tensor) -> Tensor:
    node = product.grad_fn.next_functions[0][0]  # type: ignore[union-attr]
    weight = node.next_functions[1][0].variable
    (gradient,) = torch.autograd.grad(product, weight)
    return gradient


@activations
def test_other_threads_in_backward_than_in_forward(activation: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    x = torch.randn(100_003, dtype=torch.float64).requires_grad_()
    made: list[object] = []
    for size, dtype in itertools.product((32_769, 65_541, 100_003), (torch.float32, torch.float64)):
        torch.set_num_threads(1)
        with watching(made.append), rebuilding():
            dropped, product = operand(x[:size].to(dtype) * 1, activation)
        torch.set_num_threads(3)
        assert torch.equal(gradient_of_weight(product), dropped)
        assert torch.get_num_threads() == 3
    assert len(made) == 6


@activations
@pytest.mark.parametrize(
    "lay",
    [
        lambda x: x.transpose(0, 2),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x[..., :-1],
        lambda x: x[..., :1].expand(-1, -1, -1, 37),
    ],
    ids=["transposed", "channels last", "part", "expanded"],
)
@pytest.mark.parametrize("around", [nullcontext, row_by_row])
def test_inputs_that_do_not_lie_row_by_row(
    around: Callable[[], AbstractContextManager[None]],
    lay: Callable[[Tensor], Tensor],
    activation: Callable[[Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 29, 37).requires_grad_()
    made: list[object] = []
    with watching(made.append), around(), rebuilding():
        dropped, product = operand(lay(x * 1), activation)
    assert torch.equal(gradient_of_weight(product), dropped) and made
