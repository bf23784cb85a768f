"""LayerNorm's backward by the CPU core: the same bits on every instruction set, right by its definition in float64,
written whole and not beyond, and its bias gradient stock's."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pmexp.packed_dropout import cpu
from pmexp.systems.tempo import layer_norm  # noqa: F401  it makes the operator

BACKENDS = cpu.available_backends()
pytestmark = pytest.mark.skipif(not BACKENDS, reason="installed without a C++ compiler: no core to test")

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
Result = tuple[Tensor, Tensor]  # the input's gradient, and weight's and bias's


class Case(NamedTuple):
    """What LayerNorm saves of random rows, and the gradient of its output; the columns in `kept_at` have the
    weight 0."""

    grad: Tensor
    output: Tensor
    rstd: Tensor
    weight: Tensor
    bias: Tensor
    kept_at: Tensor
    kept: Tensor
    h: Tensor  # the normalised values, float64


def case(rows: int, columns: int, dtype: torch.dtype = torch.float32, kept: int = 0) -> Case:
    generator = torch.Generator().manual_seed(1000 * rows + columns)
    random = torch.randn(3, rows, columns, generator=generator)
    weight, bias = torch.rand(2, columns, generator=generator) + 0.5
    kept_at = torch.randperm(columns, generator=generator)[: min(kept, columns)].sort().values
    weight[kept_at] = 0.0
    rstd = random[2, :, 0].abs() + 0.5
    h = random[1]
    output = (h * weight + bias).to(dtype)
    centred = (h[:, kept_at] / rstd[:, None]).to(dtype)
    known = (output.double() - bias) / weight.double()
    known[:, kept_at] = centred.double() * rstd[:, None].double()
    return Case(random[0].to(dtype), output, rstd, weight, bias, kept_at, centred, known)


def by(backend: str, of: Case) -> Result:
    return cpu.Core(backend).layer_norm_backward(*of[:7])


def assert_same_bits(actual: Result, expected: Result) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 9),
    columns=st.one_of(st.integers(1, 100), st.sampled_from([31, 32, 33, 64, 257])),
    dtype=st.sampled_from(FLOATS),
    kept=st.integers(0, 5),
)
def test_every_instruction_set_computes_the_definition(
    rows: int, columns: int, dtype: torch.dtype, kept: int
) -> None:
    of = case(rows, columns, dtype, kept)
    results = [by(backend, of) for backend in BACKENDS]
    for each in results[1:]:
        assert_same_bits(each, results[0])
    grad_x, (grad_weight, grad_bias) = results[0]
    grad, weighted = of.grad.double(), of.grad.double() * of.weight.double()
    mean, product = weighted.mean(-1, keepdim=True), (weighted * of.h).mean(-1, keepdim=True)
    expected = of.rstd[:, None].double() * (weighted - mean - of.h * product)
    assert (grad_x.dtype, grad_x.shape) == (dtype, (rows, columns))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(grad_x.double(), expected, rtol=eps, atol=2e-5)
    torch.testing.assert_close(grad_weight.double(), (grad * of.h).sum(0), rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(grad_bias.double(), grad.sum(0), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_gradient_of_the_bias_is_stocks_by_any_number_of_threads(threads: int) -> None:
    """Rows are split as torch splits them; the input's gradient does not depend on it."""
    of, before = case(77, 45), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parameters = of.weight, of.bias
        mean = torch.zeros_like(of.rstd)
        stock = torch.ops.aten.native_layer_norm_backward(
            of.grad, of.h.float(), [45], mean, of.rstd, *parameters, [True] * 3
        )
        grad_x, (_, grad_bias) = by(BACKENDS[0], of)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(grad_bias, stock[2])
    assert torch.equal(grad_x, by(BACKENDS[-1], of)[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_outputs_are_written_whole_and_not_beyond(
    backend: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory that is made for results is full of NaN, in the middle of more of it."""
    of, around = case(3, 37, dtype), []

    def poisoned(like: Tensor) -> Tensor:
        whole = torch.full((like.numel() + 128,), torch.nan, dtype=like.dtype)
        around.append(whole)
        return whole[64:-64].view(like.shape)

    expected = by(backend, of)
    monkeypatch.setattr(torch, "empty_like", poisoned)
    grad_x, of_parameters = by(backend, of)
    assert_same_bits((grad_x, of_parameters), expected)
    (whole,) = around
    assert not grad_x.isnan().any() and whole[:64].isnan().all() and whole[-64:].isnan().all()


def test_what_has_no_weight_and_no_bias_has_those_of_one_and_zero() -> None:
    of = case(4, 40)._replace(weight=torch.ones(40), bias=torch.zeros(40))
    without = cpu.Core(BACKENDS[0]).layer_norm_backward(*of[:3], None, None, None, None)
    assert_same_bits(without, by(BACKENDS[0], of))


def test_other_dtypes_are_refused() -> None:
    of, core = case(2, 8), cpu.Core(BACKENDS[0])
    with pytest.raises(TypeError, match="layer_norm_backward takes one dtype below float64"):
        core.layer_norm_backward(of.grad.double(), of.output.double(), *of[2:7])
    with pytest.raises(TypeError, match="below takes a dtype below float64"):
        core.below(of.grad.double(), 0.0)


@pytest.mark.parametrize("kept", [0, 3])
def test_the_operator_of_fake_tensors_is_that_of_real_ones(kept: int) -> None:
    of = case(6, 40, torch.bfloat16, kept)
    columns = (of.kept_at, of.kept) if kept else (None, None)
    arguments = (of.grad, of.output, of.rstd[:, None], of.weight, of.bias, *columns, [40])
    operator = torch.ops.pmexp.layer_norm_backward_from_output.default
    torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
    assert_same_bits(operator(*arguments), by(BACKENDS[0], of))
