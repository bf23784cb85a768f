"""forward_unpack_dropout: the masks of packed_dropout, kept as bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pmexp.packed_dropout import ForwardUnpackDropout, forward_unpack_dropout, packed_dropout
from saved_tensors import saved_by


@given(
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    p=st.one_of(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.floats(0.0, 1.0)),
    seed=st.integers(0, 2**31),
    inplace=st.booleans(),
)
def test_equals_packed_dropout_bit_for_bit(
    shape: tuple[int, ...], dtype: torch.dtype, p: float, seed: int, inplace: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, g = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    x.requires_grad_()
    found = []
    for dropout in (packed_dropout, forward_unpack_dropout):
        torch.manual_seed(seed)
        y = dropout(x * 1.0, p, True, inplace)
        found.append((y, torch.autograd.grad(y, x, g)[0], torch.get_rng_state()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_saves_a_byte_an_element() -> None:
    x = torch.randn(3, 37, requires_grad=True)
    _, saved = saved_by(lambda: forward_unpack_dropout(x, 0.3))
    assert [(t.dtype, t.shape) for t in saved] == [(torch.bool, x.shape)]


def test_gradcheck_and_gradgradcheck() -> None:
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)

    def dropped(values: Tensor) -> Tensor:
        torch.manual_seed(2)
        return forward_unpack_dropout(values, 0.3) ** 2

    assert torch.autograd.gradcheck(dropped, x)
    assert torch.autograd.gradgradcheck(dropped, x)


def test_compiled_it_is_the_same() -> None:
    x = torch.randn(5, 33, requires_grad=True)
    results = []
    for call in (
        forward_unpack_dropout,
        torch.compile(forward_unpack_dropout, backend="aot_eager", fullgraph=True),
    ):
        torch.manual_seed(4)
        y = call(x, 0.3)
        results.append((y, torch.autograd.grad(y.sum(), x)[0]))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_module_in_training_and_evaluation() -> None:
    module, x = ForwardUnpackDropout(0.5), torch.ones(200)
    assert (module(x) == 0).any()
    assert module.eval()(x) is x


def test_bad_options() -> None:
    with pytest.raises(ValueError, match=r"p: 2 .* 0 to 1"):
        forward_unpack_dropout(torch.ones(3), 2)
    with pytest.raises(TypeError, match="int64"):
        forward_unpack_dropout(torch.ones(3, dtype=torch.int64))
