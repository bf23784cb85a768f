"""The mean of what packed dropout gives is its input: kept elements are multiplied by an unrounded 1 / (1 - p).

A factor rounded to bfloat16 is off by 0.20, -0.16 and 0.27 % at p = 0.05, 0.1 and 0.15. Elements are computed here
once more with NumPy: x times the factor in float32 (float64 for float64), rounded to x's dtype.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pmexp.packed_dropout import (
    cpu,
    dropped_matmul,
    native,
    packed_bias_dropout_add,
    packed_dropout,
    reference,
    unpack_bits,
)
from pmexp.variants.forward_unpack import forward_unpack_dropout
from pmexp.variants.seeded import seeded_dropout

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
RATES = [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.9]
COUNT = 2**16

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_rate = pytest.mark.parametrize("p", RATES)


@cache
def distinct_values(dtype: torch.dtype) -> Tensor:
    """Returns 2**16 distinct values: all that 16 bits can say, with infinities, NaNs and subnormals, or of 17 binades."""
    if dtype.itemsize == 2:
        return torch.arange(COUNT).to(torch.int16).view(dtype)
    generator = torch.Generator().manual_seed(7)
    significands = 1 + torch.rand(COUNT, dtype=torch.float64, generator=generator)
    signs = 1 - 2 * torch.randint(0, 2, (COUNT,), generator=generator)
    x = (significands * signs * 2.0 ** torch.randint(-8, 9, (COUNT,), generator=generator)).to(dtype)
    assert x.unique().numel() > 0.99 * COUNT
    return x


def product(x: Tensor, keep: Tensor, p: float) -> Tensor:
    """x * keep / (1 - p) by NumPy's scalars."""
    number = np.float64 if x.dtype is torch.float64 else np.float32
    factor = number(1) / number(1 - p)
    with np.errstate(all="ignore"):
        wide = x.to(torch.float64).numpy().astype(number) * keep.numpy() * factor
    return torch.from_numpy(wide).to(x.dtype)


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Compares every value; a NaN equals another, and 0 equals -0."""
    assert actual.dtype == expected.dtype
    assert ((actual == expected) | (actual.isnan() & expected.isnan())).all()


def assert_unbiased(y: Tensor, x: Tensor, p: float) -> None:
    """Over kept elements (1 - p) * y / x is 1 on average, to five standard errors of the rounding of y. It repeats
    itself in every binade, so there are as many samples as significands. The factor itself is right to a rounding."""
    limits = torch.finfo(x.dtype)
    whole = (y != 0) & (y.abs() < torch.inf) & (torch.minimum(x.abs(), y.abs()) >= limits.smallest_normal)
    ratio = (1 - p) * y[whole].double() / x[whole].double()
    samples = min(1 / limits.eps, len(ratio))
    wide = torch.finfo(reference.compute_dtype(x.dtype)).eps
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / samples**0.5 + wide


@pytest.fixture(params=[*cpu.available_backends(), "reference"])
def operators(request: pytest.FixtureRequest) -> Any:
    """The operators of each backend that runs here."""
    return reference if request.param == "reference" else cpu.Core(request.param)


@each_rate
@each_dtype
def test_every_operator_rounds_once(operators: Any, dtype: torch.dtype, p: float) -> None:
    x, seed = distinct_values(dtype), torch.tensor([9])
    y, packed = operators.packed_dropout(x, seed, p, 1)
    keep = unpack_bits(packed, x.shape, 1)
    expected = product(x, keep, p)
    assert_equal(y, expected)
    assert_unbiased(y, x, p)
    assert_equal(operators.seeded_dropout(x, seed, p), expected)
    for bits in (1, 2, 4):
        again, packed = operators.packed_dropout(x, seed, p, bits)
        assert_equal(again, expected)
        assert_equal(operators.apply_packed_mask(x, packed, p, bits), expected)
    bias = torch.full((2,), 0.5, dtype=dtype)
    added, _ = operators.bias_dropout_add(x.view(-1, 2), bias, x.view(-1, 2), seed, p, 1)
    assert_equal(added.flatten(), x + product(x + 0.5, keep, p))  # rounded three times


@each_dtype
def test_so_do_the_kernels_for_cuda(interpreter: Any, dtype: torch.dtype) -> None:
    seed, every = torch.tensor([9]), distinct_values(dtype)
    for p, step in zip(RATES, (29, 31, 37, 41, 43, 47, 53), strict=True):  # prime: all significands come up
        x = every[::step].contiguous()
        y, packed = interpreter.packed_dropout(x, seed, p, 1)
        expected = product(x, unpack_bits(packed, x.shape, 1), p)
        assert_equal(y, expected)
        assert_equal(interpreter.apply_packed_mask(x, packed, p, 1), expected)


def second_backward(x: Tensor, p: float) -> Tensor:
    """packed_dropout whose graph has been walked once, and so holds its unpacked mask."""
    with native.by_python():  # whose node says what it holds
        y = packed_dropout(x, p)
    torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert y.grad_fn.keep is not None  # type: ignore[union-attr]
    return y


def unit_matmul(x: Tensor, p: float) -> Tensor:
    """Drops `x` as the left factor of a product with 1, whose gradient passes the mask."""
    one = torch.ones(1, 1, dtype=x.dtype)
    return dropped_matmul(x[:, None], one, p)[:, 0]


PUBLIC: dict[str, Callable[[Tensor, float], Tensor]] = {
    "packed": packed_dropout,
    "2 bits": partial(packed_dropout, bits=2),
    "4 bits": partial(packed_dropout, bits=4),
    "unpacked before": second_backward,
    "seeded": seeded_dropout,
    "forward-unpack": forward_unpack_dropout,
    "bias-dropout-add": lambda x, p: packed_bias_dropout_add(x, None, torch.zeros_like(x), p),
    "recomputed": unit_matmul,
}


@pytest.mark.parametrize("create_graph", [False, True], ids=["", "create_graph"])
@pytest.mark.parametrize("name", PUBLIC)
@each_dtype
def test_outputs_and_gradients_average_to_their_inputs(
    name: str, dtype: torch.dtype, create_graph: bool
) -> None:
    every = distinct_values(dtype)
    values = every[every.isfinite() & (every.abs() >= torch.finfo(dtype).smallest_normal)]
    x, upstream = values.clone().requires_grad_(), values.flip(0).requires_grad_(create_graph)
    for p in RATES:
        torch.manual_seed(5)
        keep = packed_dropout(torch.ones_like(x, dtype=torch.float64), p) != 0
        torch.manual_seed(5)
        y = PUBLIC[name](x, p)
        (gradient,) = torch.autograd.grad(y, x, upstream, create_graph=create_graph, retain_graph=True)
        for actual, given in ((y, x), (gradient, upstream)):
            assert_equal(actual.detach(), product(given.detach(), keep, p))
            assert_unbiased(actual.detach(), given.detach(), p)
        if create_graph:  # linear: its derivative is the mask once more
            (second,) = torch.autograd.grad(gradient, upstream, values)
            assert_equal(second, product(values, keep, p))


@each_dtype
def test_means_of_many_draws(dtype: torch.dtype) -> None:
    """Means of y / x, dropped elements included, are within five standard errors, of which one is sqrt(p / (1 - p) / n)."""
    x = distinct_values(dtype)
    x = x[(x.abs() >= 2.0**-8) & (x.abs() < 2.0**8)]
    x = x.repeat(2**21 // len(x))
    for p in RATES:
        torch.manual_seed(3)
        mean = (packed_dropout(x, p).double() / x.double()).mean()
        assert abs(mean - 1) < 5 * (p / (1 - p) / len(x)) ** 0.5


def all_derivatives(drop: Callable[[Tensor], Tensor], values: Tensor) -> list[Tensor]:
    """Output, gradient, the gradient of a second backward, and its own derivative."""
    x = values.detach().requires_grad_()
    upstream = values.flip(0).requires_grad_()
    torch.manual_seed(5)
    y = drop(x)
    once, again = (torch.autograd.grad(y, x, upstream, retain_graph=True)[0] for _ in range(2))
    (gradient,) = torch.autograd.grad(y, x, upstream, create_graph=True)
    return [y.detach(), once, again, *torch.autograd.grad(gradient, upstream, values)]


@pytest.mark.parametrize("cache_unpacked", [False, True])
@each_dtype
def test_rng_torch_on_the_cpu_rounds_the_factor_as_nn_dropout_does(
    dtype: torch.dtype, cache_unpacked: bool
) -> None:
    """Its forward and every backward are stock's, whose mean in 16 bits is off: it is there to equal stock."""
    x = distinct_values(dtype).repeat(4)
    for p in (*RATES, 0.99999):  # the last one's factor is infinite in float16
        ours = partial(packed_dropout, p=p, rng="torch", cache_unpacked=cache_unpacked)
        stock = partial(F.dropout, p=p)
        for actual, expected in zip(all_derivatives(ours, x), all_derivatives(stock, x), strict=True):
            assert_equal(actual, expected)
    if dtype is torch.bfloat16:
        kept = F.dropout(torch.ones(99, dtype=dtype), 0.15).max().item()
        assert kept * 0.85 == pytest.approx(1.0027, abs=1e-4)


def test_ends_of_float16(operators: Any) -> None:
    """A product beyond the largest number is infinite and one below the smallest 0, as on CUDA. A factor that
    float16 cannot hold makes neither."""
    largest, smallest = torch.finfo(torch.float16).max, 2.0**-24
    x = torch.tensor([largest, 62000.0, -62000.0, 3 * smallest, smallest, 0.0, -0.0], dtype=torch.float16)
    packed = reference.pack_bits(torch.ones(7, dtype=torch.bool))
    half = operators.apply_packed_mask(x, packed, 0.5, 1)
    assert half.tolist() == [torch.inf, torch.inf, -torch.inf, 6 * smallest, 2 * smallest, 0.0, -0.0]
    assert operators.apply_packed_mask(x, packed, 0.05, 1).tolist()[:3] == [torch.inf, 65280.0, -65280.0]
    far = operators.apply_packed_mask(x, packed, 1 - 2.0**-17, 1)
    assert far.tolist()[3:] == [3 * 2.0**-7, 2.0**-7, 0.0, -0.0]
    some = reference.pack_bits(torch.tensor([True, False, False, True, False, False, True]))
    stock = operators.scale_packed_mask(x, some, reference.stock_cpu_scale(1 - 2.0**-17, x.dtype), 1)
    assert_equal(stock, torch.tensor([torch.inf, 0, 0, torch.inf, 0, 0, torch.nan], dtype=x.dtype))
