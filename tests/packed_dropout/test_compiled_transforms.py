"""A transform that is compiled gives the derivative of what was drawn, or is refused."""

from collections.abc import Callable

import pytest
import torch
import torch._dynamo.exc
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import (
    vmap,
)

from dropout_cases import (
    Dropout,
    X,
    each_dropout,
)
from pmexp.packed_dropout import (
    packed_dropout,
)


def tangent(drop: Dropout) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return lambda x: torch.func.jvp(drop, (x,), (x,))


def gradient(drop: Dropout) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def sum_and_output(x: Tensor) -> tuple[Tensor, Tensor]:
        y = drop(x)
        return y.sum(), y

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        scaled_mask, y = torch.func.grad(sum_and_output, has_aux=True)(x)
        return y, scaled_mask * x

    return run


def gradients(drop: Dropout) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    return torch.func.vmap(gradient(drop), randomness="different")


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("transform", [tangent, gradient, gradients])
@each_dropout
def test_compiled_transforms_are_right_or_refused(
    drop: Dropout, transform: Callable[[Dropout], Callable[[Tensor], tuple[Tensor, Tensor]]]
) -> None:
    """Dropout is linear: its derivative in the direction of the input is its output."""
    torch.compiler.reset()
    run = torch.compile(transform(drop), fullgraph=True, backend="aot_eager")
    try:
        y, derivative = run(X)
    except torch._dynamo.exc.TorchDynamoException:
        return
    assert (y == 0).any()
    assert torch.equal(derivative, y)


@each_dropout
def test_compiled_forward_mode_is_right_or_refused(drop: Dropout) -> None:
    torch.compiler.reset()
    run = torch.compile(drop, fullgraph=True, backend="aot_eager")
    with forward_ad.dual_level():
        try:
            y, derivative = forward_ad.unpack_dual(run(forward_ad.make_dual(X, X)))
        except torch._dynamo.exc.TorchDynamoException:
            return
        assert derivative is not None and torch.equal(derivative, y)


def test_compiled_vmap_draws_a_seed_for_each_sample() -> None:
    run = torch.compile(vmap(packed_dropout, randomness="different"), fullgraph=True, backend="aot_eager")
    y = run(torch.ones(2, 1001))
    assert not torch.equal(y[0], y[1])
