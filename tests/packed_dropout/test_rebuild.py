"""Dropped operands of products are made again from bits: the same gradients bit for bit, by whatever way they come."""

import gc
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pmexp.packed_dropout.rebuild import rebuilding
from rebuilt_operands import DROP, SHAPE, WEIGHT, Step, assert_made_again, gate, train

SOURCES: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu-tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": partial(torch.softmax, dim=-1),
    "gate": gate,
    "gelu, viewed": lambda x: F.gelu(x.flatten()).view(SHAPE),
    "softmax, cast": lambda x: torch.softmax(x, -1, torch.float64).to(x.dtype),
}

PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda y, w: F.linear(y, w, w[0]),
    "linear without bias": F.linear,
    "matmul": torch.matmul,
    "matmul on the right": lambda y, w: torch.matmul(w[:4, :4].expand(2, 3, 4, 4), y),
    "bmm": lambda y, w: torch.bmm(y.view(6, 4, 8), w.expand(6, 8, 8)),
    "addmm": lambda y, w: torch.addmm(w[0], y.reshape(-1, 8), w),
    "einsum": lambda y, w: torch.einsum(
        "bhqk,bkhd->bqhd", y, w[:6, :4].view(2, 3, 4).repeat(1, 1, 8).view(2, 8, 3, 4)
    ),
    "conv1d": lambda y, w: F.conv1d(y.reshape(6, 4, 8), w[:, :4, None]),
    "conv2d": lambda y, w: F.conv2d(y, w[:3, :3, None, None]),
    "a part of it": lambda y, w: torch.bmm(y.view(6, 4, 8)[1:4, 2:], w.expand(3, 8, 8)),
    "transposed": lambda y, w: torch.bmm(w[:5].expand(6, 5, 8), y.view(6, 4, 8).transpose(1, 2)),
    "with itself": lambda y, w: torch.matmul(y, y.transpose(-1, -2)),
    "times": lambda y, w: y * w[0],
}


@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_in_a_linear_layer(source: str, dtype: torch.dtype, autocast: bool) -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        return F.linear(drop(SOURCES[source](x)), WEIGHT.to(dtype) * x.mean())

    assert_made_again(step, dtype=dtype, autocast=autocast)


@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize("product", PRODUCTS)
def test_every_product_of_a_gelu(product: str, autocast: bool) -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        return PRODUCTS[product](drop(F.gelu(x)), WEIGHT * x.mean())

    assert_made_again(step, autocast=autocast)


_VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "flat": lambda y: y.flatten(),
    "row": lambda y: y.reshape(-1, 2) if y.numel() % 2 == 0 else y,
    "turned": lambda y: y.transpose(0, -1),
    "cut": lambda y: y[..., 1:] if y.shape[-1] > 2 else y,
    "picked": lambda y: y[0] if y.dim() > 1 else y,
    "wider": lambda y: y.unsqueeze(1).expand(y.shape[0], 2, *y.shape[1:]),
    "bf16": lambda y: y.bfloat16(),
    "fp64": lambda y: y.double(),
    "copied": lambda y: y.contiguous(),
    "split": lambda y: y.chunk(2, -1)[0],
}


def _times(y: Tensor) -> Tensor:
    return y * y.sin().detach()


def _linear(y: Tensor) -> Tensor:
    """Copies what does not lie row by row, and views the copy behind autograd's back."""
    weight = torch.linspace(-1, 1, 3 * y.shape[-1], dtype=y.dtype).view(3, -1).requires_grad_()
    return F.linear(y, weight)


@settings(max_examples=150)
@given(
    source=st.sampled_from(sorted(SOURCES)),
    before=st.lists(st.sampled_from(sorted(_VIEWS)), max_size=3),
    after=st.lists(st.sampled_from(sorted(_VIEWS)), max_size=4),
    product=st.sampled_from([_times, _linear]),
)
def test_whatever_lies_between_the_numbers_stay(
    source: str, before: list[str], after: list[str], product: Callable[[Tensor], Tensor]
) -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        y = SOURCES[source](x)
        for name in before:
            y = _VIEWS[name](y)
        y = drop(y)
        for name in after:
            y = _VIEWS[name](y)
        return product(y)

    results = [train(step, again) for again in (False, True)]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("scale", [lambda t: t * 0.3, lambda t: 3 * t, lambda t: t / 3, lambda t: t / 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_with_a_number_in_front_of_the_dropout(
    scale: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    def step(source: Callable[[Tensor], Tensor]) -> Step:
        return lambda x, drop: F.linear(drop(scale(source(x))), WEIGHT.to(dtype) * x.mean())

    assert_made_again(step(partial(F.softmax, dim=-1)), operands=1, dtype=dtype)
    assert_made_again(step(F.gelu), operands=1, dtype=dtype, followed=True)
    assert_made_again(step(F.gelu), operands=0, dtype=dtype)  # it might have been changed in between


def test_a_linear_layer_of_what_does_not_lie_row_by_row() -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        return F.linear(drop(F.gelu(x.transpose(1, 2))), WEIGHT * x.mean())

    assert_made_again(step)
    assert_made_again(step, autocast=True, followed=True)  # cast, and then copied into rows


def test_a_tensor_that_is_rounded_on_its_way_is_rounded_again() -> None:
    def step(x: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        return F.linear(drop(F.gelu(x)).bfloat16().float(), WEIGHT * x.mean())

    assert_made_again(step, operands=1, followed=True)
    assert_made_again(
        lambda x, drop: F.linear(drop(F.gelu(x).bfloat16().float()), WEIGHT * x.mean()),
        operands=1,
        followed=True,
    )


def test_nothing_outlives_its_step() -> None:
    """Without the collector of garbage: no cycle holds a step's tensors."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            train(lambda x, drop: F.linear(drop(gate(x)), WEIGHT * x.mean()), True, autocast=True)
        left = [part for part in gc.get_objects() if type(part).__name__ in ("Origin", "Kept", "Rebuilt")]
    finally:
        gc.enable()
    assert not left


def test_two_backwards_of_one_graph_and_a_second_derivative() -> None:
    derivatives = []
    for again in (False, True):
        torch.manual_seed(3)
        x = torch.linspace(-1, 1, 48).view(6, 8).requires_grad_()
        with rebuilding() if again else nullcontext():
            y = F.linear(DROP(F.gelu(x)), WEIGHT @ x.T @ x)
        (first,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
        (once_more,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(once_more.square().sum(), x)
        assert torch.equal(first, once_more)
        derivatives.append((first, second))
    assert all(torch.equal(one, other) for one, other in zip(*derivatives, strict=True))
