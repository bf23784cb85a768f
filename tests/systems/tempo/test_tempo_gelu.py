"""In-place GELU: stock outputs bit for bit, gradients within the stated bound, a bit an element saved."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import activations

from pmexp.packed_dropout import ops
from pmexp.systems.tempo import InplaceGELU
from pmexp.systems.tempo.gelu import backward_by_torch, falling_bits
from pmexp.systems.tempo.gelu_derivative import (
    ARGMIN,
    CELLS,
    ROUNDED_MINIMUM,
    TABLE_ERROR,
    derivative,
    derivative_from_output,
    gelu,
)
from saved_tensors import saved_by

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
KINDS = [
    nn.GELU(),
    nn.GELU("tanh"),
    activations.GELUActivation(),
    activations.GELUActivation(use_gelu_python=True),
    activations.GELUTanh(),
    activations.NewGELUActivation(),
    activations.FastGELUActivation(),
    activations.AccurateGELUActivation(),
]
each_kind = pytest.mark.parametrize("stock", KINDS, ids=lambda stock: type(stock).__name__)
LARGEST = {torch.float64: 1e-6, torch.float32: 4e-4, torch.float16: 1.5e-2, torch.bfloat16: 4e-2}
forms = pytest.mark.parametrize("form", ["erf", "tanh"])


def grid(dtype: torch.dtype) -> Tensor:
    """A million points on [-9, 9], dense around the minimum; every finite 16-bit number in that range."""
    if dtype.itemsize == 2:
        every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        return every[every.isfinite() & (every.abs() <= 9)]
    return torch.cat(
        [torch.linspace(-9, 9, 1 << 19, dtype=dtype), torch.linspace(-0.76, -0.74, 1 << 19, dtype=dtype)]
    )


def gradient(function: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


@forms
def test_the_minimum_is_where_it_is_said_to_be(form: str) -> None:
    x = torch.tensor([ARGMIN[form] - 1e-12, ARGMIN[form] + 1e-12], dtype=torch.float64)
    below, above = derivative(x, form)
    assert below < 0 < above
    with torch.enable_grad():
        x = grid(torch.float64).requires_grad_()
        torch.testing.assert_close(
            torch.autograd.grad(gelu(x, form).sum(), x)[0], derivative(x.detach(), form), rtol=0, atol=1e-14
        )


@forms
def test_the_table_between_all_its_nodes(form: str) -> None:
    x = torch.linspace(-12, 12, 64 * CELLS, dtype=torch.float64)
    for dtype, arithmetic in ((torch.float64, 0.0), (torch.float32, 2e-7)):
        y = gelu(x, form).to(dtype)
        far = (x - ARGMIN[form]).abs() > 0.5 * (dtype is torch.float32)  # near it, the rounding of y counts
        error = (derivative_from_output(y, x < ARGMIN[form], form).double() - derivative(x, form)).abs()
        assert error[far].max() <= TABLE_ERROR + 2 * arithmetic


@each_kind
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_output_and_gradient_are_within_the_bound(stock: nn.Module, dtype: torch.dtype) -> None:
    module, x = InplaceGELU(stock), grid(dtype)
    y = module(x.clone().requires_grad_()).detach()
    assert torch.equal(y, stock(x))
    exact = derivative(x.double(), module.form)
    error = (gradient(module, x).double() - exact).abs()
    d = (y.double() - gelu(x.double(), module.form)).abs() + ROUNDED_MINIMUM * (dtype is not torch.float64)
    bound = TABLE_ERROR + torch.where(x >= 0, 2 * d, d.sqrt() + 9 * d)
    # The gradient itself is rounded.
    rounding = 0.5 * torch.finfo(dtype).eps * exact.abs() + torch.finfo(dtype).tiny
    # Python's formulas round each step, in the tail 1 + tanh to 0: d holds what they are off.
    assert (error <= bound + rounding).all()
    assert error.max() <= LARGEST[dtype]


@given(
    st.lists(st.integers(0, 9), max_size=4).map(tuple),
    st.sampled_from(FLOATS),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_shapes_and_layouts(shape: tuple[int, ...], dtype: torch.dtype, turned: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, grad = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    if turned:
        x = x.permute(tuple(range(len(shape)))[::-1])
        grad = grad.permute(tuple(range(len(shape)))[::-1])
    x = x.requires_grad_()
    y, saved = saved_by(lambda: InplaceGELU(nn.GELU())(x))
    assert torch.equal(y, F.gelu(x)) and y.stride() == F.gelu(x).stride()
    assert [t.numel() for t in saved] == [x.numel(), -(-x.numel() // 8)]
    assert saved[1].dtype is torch.uint8 and saved[0].data_ptr() == y.data_ptr()
    actual, expected = (torch.autograd.grad(each, x, grad)[0] for each in (y, F.gelu(x)))
    # Numbers may lie at the minimum, where the bound is that of `LARGEST`; so is each gradient's rounding.
    atol = 5 * LARGEST[dtype]
    torch.testing.assert_close(actual, expected, rtol=2 * torch.finfo(dtype).eps, atol=atol)


def test_stretches_of_backward_join() -> None:
    """There are more elements than a stretch of torch's operators holds, and a tail of no whole byte."""
    x, grad = torch.randn(2, 2**18 + 5, generator=torch.Generator().manual_seed(0))
    y, packed = F.gelu(x), falling_bits(x, "erf")
    whole = grad * derivative_from_output(y, ops.unpack_bits(packed, x.shape, 1), "erf")
    assert torch.equal(backward_by_torch(grad, y, packed, "erf"), whole)


def test_special_numbers() -> None:
    """The output alone is kept, and oneDNN's GELU, which torch takes on Intel's CPUs, is NaN at infinity."""
    x = torch.tensor([float("inf"), float("nan"), -0.0, 0.0, 1e30, -1e30])
    at_infinity = 7.0 if nn.GELU()(x)[0].isnan() else 1.0
    assert gradient(InplaceGELU(nn.GELU()), x).nan_to_num(7.0).tolist() == pytest.approx(
        [at_infinity, 7.0, 0.5, 0.5, 1.0, 0.0], abs=1e-6
    )


@each_kind
def test_nothing_more_than_the_next_linear_layer_saves_but_the_bits(stock: nn.Module) -> None:
    linear, x = nn.Linear(96, 5), torch.randn(7, 96, requires_grad=True)
    _, saved = saved_by(lambda: linear(InplaceGELU(stock)(x)))
    y = stock(x.detach()).requires_grad_()
    _, by_linear = saved_by(lambda: linear(y))
    _, by_stock = saved_by(lambda: linear(stock(x)))

    def distinct(tensors: list[Tensor]) -> int:
        own = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(own.values())

    assert distinct(saved) == distinct(by_linear) + x.numel() // 8
    assert distinct(by_stock) - distinct(saved) >= 4 * x.numel() - x.numel() // 8


@each_kind
def test_eval_and_no_grad_are_stock(stock: nn.Module) -> None:
    module, x = InplaceGELU(stock), torch.randn(50, requires_grad=True)
    for training in (False, True):
        module.train(training)
        with torch.set_grad_enabled(not training):
            (y, saved), (expected, by_stock) = saved_by(lambda: module(x)), saved_by(lambda: stock(x))
        assert torch.equal(y, expected) and len(saved) == len(by_stock)
    module.eval()
    assert torch.equal(gradient(module, x.detach()), gradient(stock, x.detach()))


@each_kind
def test_compiles_whole(stock: nn.Module) -> None:
    module, x = InplaceGELU(stock), torch.randn(5, 9)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(gradient(compiled, x), gradient(module, x))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_and_autocast(reentrant: bool) -> None:
    net = nn.Sequential(nn.Linear(9, 16), InplaceGELU(nn.GELU()), nn.Linear(16, 4))
    x = torch.randn(5, 9, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        direct, again = net(x), checkpoint(net, x, use_reentrant=reentrant)
    assert direct.dtype is torch.bfloat16 and torch.equal(direct, again)
    grads = []
    for each in (direct, again):
        net.zero_grad()
        each.sum().backward()
        grads.append(net[0].weight.grad)
    assert torch.equal(*grads)


def test_second_derivatives_are_refused() -> None:
    x = torch.randn(5, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"create_graph=True: .* leave tempo out"):
        torch.autograd.grad(InplaceGELU(nn.GELU())(x).sum(), x, create_graph=True)


def test_copies_and_other_activations() -> None:
    module, x = InplaceGELU(nn.GELU("tanh")), torch.randn(33)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(gradient(twin, x), gradient(module, x)) and twin.state_dict() == {}
    with pytest.raises(ValueError, match="stock: ReLU is no erf or tanh GELU"):
        InplaceGELU(nn.ReLU())
