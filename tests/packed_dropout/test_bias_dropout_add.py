"""Bias + dropout + residual add in one op, against the three steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dropout_cases import assert_derivatives
from pmexp.packed_dropout import cpu, ops, packed_bias_dropout_add, packed_dropout, reference
from saved_tensors import saved_by

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
shapes = st.lists(st.integers(0, 70), min_size=1, max_size=3).map(tuple)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, with_bias: bool) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(2))
    bias = torch.randn(shape[-1:], generator=generator).to(dtype).requires_grad_() if with_bias else None
    return [x, bias, residual]


@given(
    shape=shapes,
    dtype=st.sampled_from(DTYPES),
    with_bias=st.booleans(),
    p=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    bits=st.sampled_from([1, 2, 4]),
    training=st.booleans(),
)
def test_equals_the_three_steps_bit_for_bit(
    shape: tuple[int, ...], dtype: torch.dtype, with_bias: bool, p: float, bits: int, training: bool
) -> None:
    x, bias, residual = inputs(shape, dtype, with_bias)
    assert x is not None and residual is not None
    torch.manual_seed(5)
    y = packed_bias_dropout_add(x, bias, residual, p, training, bits=bits)
    torch.manual_seed(5)
    expected = residual + packed_dropout(x if bias is None else x + bias, p, training)
    assert torch.equal(y, expected)
    leaves = [leaf for leaf in (x, bias, residual) if leaf is not None]
    upstream = torch.randn_like(y)
    pairs = zip(
        torch.autograd.grad(y, leaves, upstream), torch.autograd.grad(expected, leaves, upstream), strict=True
    )
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("backend", cpu.available_backends())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_every_instruction_set_equals_the_reference(backend: str, dtype: torch.dtype, bits: int) -> None:
    core, seed = cpu.Core(backend), torch.tensor([8])
    for shape in [(1,), (7,), (5, 3), (9, 33), (4, 100, 31), (70, 1000), (2, 64, 768)]:
        for with_bias in (False, True):
            x, bias, residual = (None if t is None else t.detach() for t in inputs(shape, dtype, with_bias))
            assert x is not None and residual is not None
            by_core = core.bias_dropout_add(x, bias, residual, seed, 0.3, bits)
            expected = reference.bias_dropout_add(x, bias, residual, seed, 0.3, bits)
            assert torch.equal(by_core[0], expected[0]) and torch.equal(by_core[1], expected[1])


def test_transposed_and_sliced_inputs() -> None:
    x, residual = torch.randn(33, 20).t(), torch.randn(40, 33)[::2]
    torch.manual_seed(6)
    y = packed_bias_dropout_add(x, torch.arange(33.0), residual, 0.4)
    torch.manual_seed(6)
    assert torch.equal(y, residual + packed_dropout(x + torch.arange(33.0), 0.4))


def test_saves_the_bits_alone() -> None:
    x, bias, residual = inputs((10, 100), torch.float32, True)
    assert x is not None and residual is not None
    _, saved = saved_by(lambda: packed_bias_dropout_add(x, bias, residual, 0.1))
    assert [(t.dtype, t.numel()) for t in saved] == [(torch.uint8, 125)]


def test_gradcheck_and_gradgradcheck() -> None:
    tensors = inputs((4, 9), torch.float64, True)
    assert_derivatives(lambda *values: packed_bias_dropout_add(*values, 0.3) ** 2, *tensors)


def test_opcheck_and_what_does_not_fit() -> None:
    x = torch.randn(3, 37)
    torch.library.opcheck(ops.bias_dropout_add, (x, x[0].clone(), x.clone(), torch.tensor([4]), 0.3, 1))
    torch.library.opcheck(ops.bias_dropout_add, (x, None, x.clone(), torch.tensor([4]), 0.3, 2))
    for residual, bias, message in [
        (x[:2], None, r"residual: \(2, 37\)"),
        (x.double(), None, "residual: .*float64"),
        (x, x[0, :5], r"bias: \(5,\)"),
        (x, x[0].half(), "bias: .*float16"),
    ]:
        with pytest.raises(ValueError, match=message):
            packed_bias_dropout_add(x, bias, residual, 0.1)
    with pytest.raises(TypeError, match="int64"):
        packed_bias_dropout_add(torch.ones(3, dtype=torch.int64), None, torch.ones(3), 0.1)


@pytest.mark.parametrize("with_bias", [False, True])
def test_the_operator_by_itself_has_gradients_too(with_bias: bool) -> None:
    """An exported program calls it without the function around: the residual's gradient knows no mask."""
    leaves = inputs((6, 33), torch.float32, with_bias)
    x, bias, residual = leaves
    y, packed = ops.bias_dropout_add(x, bias, residual, torch.tensor([4]), 0.3, 1)
    upstream = torch.randn_like(y)
    masked = ops.apply_packed_mask(upstream, packed, 0.3, 1)
    expected = [masked, masked.sum(0), upstream] if with_bias else [masked, upstream]
    actual = torch.autograd.grad(y, [leaf for leaf in leaves if leaf is not None], upstream)
    assert not torch.equal(masked, upstream)
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))
