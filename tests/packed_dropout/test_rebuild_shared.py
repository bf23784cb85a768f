"""Dropped copies of one input, and casts of one dropped tensor, keep one tensor between them and bits."""

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import packed_dropout
from pmexp.packed_dropout.origins import rebuildable_dropout
from pmexp.packed_dropout.rebuild import rebuilding, watching
from rebuilt_operands import DROP, OPTIONS, WEIGHT, row_by_row, train


def test_an_input_that_is_there_anyhow_is_shared_by_its_dropped_copies() -> None:
    """As three adapters of one input have it: with masks of their own, they keep one tensor and bits."""
    weight = WEIGHT.clone().requires_grad_()
    x = torch.randn(64, 8).requires_grad_() * 1

    def forward(drop: Callable[[Tensor], Tensor]) -> Tensor:
        return sum(F.linear(drop(x), weight) for _ in range(3))  # type: ignore[return-value]

    with SavedForBackward(nn.ParameterList([weight])) as plain:
        forward(DROP)
    with SavedForBackward(nn.ParameterList([weight])) as ledger, rebuilding():
        forward(DROP)
    tensor, bits = 64 * 8 * 4, 64
    assert plain.total_bytes == 3 * (tensor + bits) and ledger.total_bytes == tensor + 3 * bits


def products_of_a_constant(
    again: bool, between: Callable[[Tensor], Tensor] = lambda y: y
) -> tuple[int, list[Tensor]]:
    """Bytes saved by three products of dropped copies of one input without a gradient, and the gradient."""
    weight, x = WEIGHT.clone().requires_grad_(), torch.linspace(-1, 1, 64 * 8).view(64, 8)
    torch.manual_seed(3)
    with SavedForBackward(nn.ParameterList([weight])) as ledger, rebuilding() if again else nullcontext():
        drop = rebuildable_dropout if again else packed_dropout
        y = sum(between(drop(x, 0.3, True, **OPTIONS)) @ weight for _ in range(3))
    return ledger.total_bytes, [*torch.autograd.grad(y.square().sum(), weight)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("between", "caught"),
    [
        (lambda y: y, True),
        (lambda y: y.view(32, 2, 8), True),
        (lambda y: y[3:], True),
        (lambda y: y.add_(1), False),
    ],
    ids=["itself", "view", "part", "changed"],
)
def test_an_input_without_a_gradient_is_shared_by_its_dropped_copies(
    between: Callable[[Tensor], Tensor], caught: bool
) -> None:
    """As adapters of a frozen model's first layer have it: no node of autograd knows of these dropouts."""
    tensor, bits = 64 * 8 * 4, 64
    (plain, expected), (saved, gradient) = (products_of_a_constant(again, between) for again in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(expected, gradient, strict=True))
    assert plain == 3 * tensor and saved == (tensor + 3 * bits if caught else plain)


def test_a_dropped_constant_can_be_copied_and_stored() -> None:
    with rebuilding():
        dropped = rebuildable_dropout(torch.ones(4, 8), 0.3, True, **OPTIONS)
    for twin in (copy.deepcopy(dropped), pickle.loads(pickle.dumps(dropped))):
        made: list[Any] = []
        with watching(made.append), rebuilding():
            F.linear(twin, WEIGHT.clone().requires_grad_())
        assert torch.equal(twin, dropped) and not made


def test_of_several_casts_of_one_dropped_tensor_one_is_saved() -> None:
    layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(again: bool) -> tuple[int, Tensor]:
        torch.manual_seed(3)
        x = torch.linspace(-1, 1, 64 * 8).view(64, 8).requires_grad_()
        made_again = rebuilding() if again else nullcontext()
        with torch.autocast("cpu", torch.bfloat16), SavedForBackward(layers) as ledger, made_again:
            y = DROP(x + 1)
            output = sum(layer(y) for layer in layers)
        (gradient,) = torch.autograd.grad(output.float().square().sum(), x)  # type: ignore[union-attr]
        return ledger.total_bytes, gradient

    plain, shared = forward(False), forward(True)
    assert torch.equal(plain[1], shared[1]) and plain[0] - shared[0] == 2 * 64 * 8 * 2


def test_a_shared_cast_lies_as_it_lay_where_hooks_save_row_by_row() -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        y = drop(x.transpose(-1, -2) + 1).double()
        return (y * WEIGHT.double().sum(0)[:4]).sum(-1) + (y.sin() * x.mean()).sum(-1)

    plain = train(step, False)
    with row_by_row():
        assert all(torch.equal(one, other) for one, other in zip(plain, train(step, True), strict=True))


def test_copies_on_two_devices_are_two() -> None:
    """As layers on several devices have them, of one dropped output of an encoder."""

    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        y = drop(x + 1)
        away = F.linear(y.to("meta"), (WEIGHT * x.mean()).to("meta"))
        here = F.linear(y.clone(), WEIGHT * x.mean())
        assert away.grad_fn
        return here

    assert all(
        torch.equal(one, other) for one, other in zip(train(step, False), train(step, True), strict=True)
    )
