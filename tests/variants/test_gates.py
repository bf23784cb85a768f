"""packed_gate and packed_relu against x * mask and F.relu, bit for bit."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from pmexp.packed_dropout import ops
from pmexp.variants.gates import PackedReLU, packed_gate, packed_relu
from saved_tensors import same_bits, saved_by

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SPECIAL = [float("inf"), float("-inf"), float("nan"), -0.0, 0.0, 1e-40, -1e-40]
shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)
layouts = st.sampled_from(["contiguous", "reversed", "sliced"])


def numbers(shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int) -> Tensor:
    """Random numbers and every special one, in any layout."""
    generator = torch.Generator().manual_seed(seed)
    if layout == "reversed":
        return numbers(shape[::-1], dtype, "contiguous", seed).permute(tuple(range(len(shape)))[::-1])
    if layout == "sliced":
        wide = numbers((*shape[:-1], 2 * shape[-1]) if shape else (), dtype, "contiguous", seed)
        return wide[..., ::2] if shape else wide
    values = torch.randn(shape, generator=generator).to(dtype)
    special = torch.tensor(SPECIAL, dtype=values.real.dtype).to(dtype)
    chosen = torch.randint(0, 3 * len(SPECIAL), shape, generator=generator)
    return torch.where(chosen < len(SPECIAL), special[chosen % len(SPECIAL)], values)


def steps(x: Tensor) -> list[int]:
    """Strides, where they mean something."""
    return [step for n, step in zip(x.shape, x.stride(), strict=True) if n > 1 and x.numel()]


@st.composite
def gates(draw: Any) -> tuple[Tensor, Tensor, Tensor]:
    """x, a mask that broadcasts to it, and a gradient."""
    shape, seed = draw(shapes), draw(st.integers(0, 2**31))
    dtype = draw(st.sampled_from([*FLOATS, torch.complex64]))
    x, grad = (numbers(shape, dtype, draw(layouts), seed + i) for i in range(2))
    ones = draw(st.sets(st.integers(0, 3)))
    mask_shape = tuple(1 if i in ones else n for i, n in enumerate(shape))[draw(st.integers(0, len(shape))) :]
    mask = numbers(mask_shape, torch.float32, draw(layouts), seed + 2) > 0
    return x.requires_grad_(), mask, grad


@given(gates())
def test_a_gate_is_the_product_and_keeps_bits_of_its_own_shape(case: tuple[Tensor, Tensor, Tensor]) -> None:
    x, mask, grad = case
    expected = x * mask
    y, saved = saved_by(lambda: packed_gate(x, mask))
    assert same_bits(y, expected) and steps(y) == steps(expected)
    assert [(t.dtype, t.numel()) for t in saved] == [(torch.uint8, -(-mask.numel() // 8))]
    assert same_bits(torch.autograd.grad(y, x, grad)[0], torch.autograd.grad(expected, x, grad)[0])


def test_a_gate_takes_any_dtype_where_there_is_no_gradient() -> None:
    x, mask = torch.arange(-4, 4), torch.tensor([True, False]).repeat(4)
    y, saved = saved_by(lambda: packed_gate(x, mask))
    assert torch.equal(y, x * mask) and y.dtype == torch.int64 and saved == []


def test_a_gate_says_what_it_does_not_take() -> None:
    x = torch.ones(2, 3)
    with pytest.raises(TypeError, match=r"mask: .* Boolean mask, got torch\.float32"):
        packed_gate(x, torch.ones(2, 3))
    for shape in ((3, 2), (1, 2, 3), (2, 2, 3), (0,)):
        with pytest.raises(ValueError, match=r"mask: shape .* does not broadcast to \(2, 3\)"):
            packed_gate(x, torch.ones(shape, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask: is on meta, x on cpu"):
        packed_gate(x, torch.ones(2, 3, dtype=torch.bool, device="meta"))


@given(shapes, st.sampled_from(FLOATS), layouts, layouts, st.booleans(), st.integers(0, 2**31))
def test_relu_equals_torchs_bit_for_bit(
    shape: tuple[int, ...], dtype: torch.dtype, layout: str, grad_layout: str, inplace: bool, seed: int
) -> None:
    x = numbers(shape, dtype, layout, seed).requires_grad_()
    grad = numbers(shape, dtype, grad_layout, seed + 1)
    start = x.clone()
    expected = F.relu(start.clone(), inplace)
    y, saved = saved_by(lambda: packed_relu(start, inplace))
    assert same_bits(y, expected) and y.stride() == expected.stride()
    assert (y.data_ptr() == start.data_ptr()) is (inplace or not y.numel())
    assert [(t.dtype, t.numel()) for t in saved] == [(torch.uint8, -(-x.numel() // 8))]
    assert same_bits(torch.autograd.grad(y, x, grad)[0], torch.autograd.grad(expected, x, grad)[0])


def test_relu_takes_floats_alone() -> None:
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.int64"):
        packed_relu(torch.arange(3))
    leaf = torch.ones(3, requires_grad=True)
    for relu in (F.relu, packed_relu):
        with pytest.raises(RuntimeError, match="leaf Variable"):
            relu(leaf, True)


class NoPacking(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not ops.pack_bits
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("function", [lambda x: packed_gate(x, x > 0), packed_relu], ids=["gate", "relu"])
def test_without_a_gradient_nothing_is_saved(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(9)
    y, saved = saved_by(lambda: function(x))
    assert torch.equal(y, x.relu()) and saved == []
    with torch.no_grad(), NoPacking():
        assert not function(x.requires_grad_()).requires_grad


MASK = torch.rand(5, 9) > 0.4
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gate": lambda x: packed_gate(x * 1.0, MASK) ** 2,
    "gate of rows": lambda x: packed_gate(x * 1.0, MASK[:, :1]) ** 2,
    "relu": lambda x: packed_relu(x * 1.0) ** 2,
    "relu in place": lambda x: packed_relu(x * 1.0, inplace=True) ** 2,
}
each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


@each_function
def test_gradcheck_and_gradgradcheck(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("function", [lambda x: packed_gate(x, MASK), packed_relu], ids=["gate", "relu"])
def test_the_backwards_of_backwards_keep_bits_too(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(5, 9, requires_grad=True)
    ones = torch.ones(5, 9, requires_grad=True)
    y = function(x)
    first, saved = saved_by(lambda: torch.autograd.grad(y, x, ones, create_graph=True)[0])
    second, more = saved_by(lambda: torch.autograd.grad(first, ones, ones, create_graph=True)[0])
    assert [(t.dtype, t.numel()) for t in saved + more] == [(torch.uint8, 6)] * 2
    assert torch.equal(second, first)


@each_function
def test_compiles_whole(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(5, 9, requires_grad=True)
    expected = function(x)
    y = torch.compile(function, fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(y, expected)
    assert torch.equal(*(torch.autograd.grad(each.sum(), x)[0] for each in (y, expected)))


@each_function
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(function: Callable[[Tensor], Tensor], reentrant: bool) -> None:
    x = torch.randn(5, 9, requires_grad=True)
    checkpoint(function, x, use_reentrant=reentrant).sum().backward()
    assert torch.equal(x.grad, torch.autograd.grad(function(x).sum(), x)[0])


def test_modes_and_subclasses_see_one_call() -> None:
    calls = []

    class Note(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            calls.append(func)
            return func(*args, **(kwargs or {}))

    class Own(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func

    x = torch.randn(5, 9, requires_grad=True)
    with Note():
        packed_relu(x)
    assert calls[0] is packed_relu
    calls.clear()
    with Note():
        packed_gate(x, MASK)
    assert calls[0] is packed_gate
    assert packed_relu(x.detach().as_subclass(Own)) is packed_relu
    assert packed_gate(x, MASK.as_subclass(Own)) is packed_gate


def test_the_module_is_relu() -> None:
    module = PackedReLU(inplace=True)
    assert isinstance(module, nn.ReLU)
    for twin in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        x = torch.randn(7, requires_grad=True)
        copied = x * 1.0
        assert twin(copied) is not x and torch.equal(copied, x.relu())
        assert repr(twin) == "PackedReLU(inplace=True)" and twin.state_dict() == {}
    y, saved = saved_by(lambda: PackedReLU()(torch.randn(9, requires_grad=True)))
    assert [t.numel() for t in saved] == [2] and (y >= 0).all()
