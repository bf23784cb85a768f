"""seeded_dropout draws the masks of packed_dropout without keeping them; forward_unpack_dropout shares its tests."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dropout_cases import assert_derivatives
from pmexp.packed_dropout import ops, packed_dropout
from pmexp.variants.forward_unpack import ForwardUnpackDropout, forward_unpack_dropout
from pmexp.variants.seeded import SeededDropout, seeded_dropout
from saved_tensors import saved_by

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

each_dropout = pytest.mark.parametrize("drop", [seeded_dropout, forward_unpack_dropout])


@each_dropout
@given(
    shape=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    dtype=st.sampled_from(DTYPES),
    p=st.one_of(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.floats(0.0, 1.0)),
    seed=st.integers(0, 2**31),
    inplace=st.booleans(),
)
def test_equals_packed_dropout_bit_for_bit(
    drop: Callable[..., Tensor],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    p: float,
    seed: int,
    inplace: bool,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, g = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    x.requires_grad_()
    results = []
    for dropout in (packed_dropout, drop):
        torch.manual_seed(seed)
        y = dropout(x * 1.0, p, True, inplace)
        results.append((y, torch.autograd.grad(y, x, g)[0], torch.get_rng_state()))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_saves_one_seed() -> None:
    x = torch.randn(1000, requires_grad=True)
    _, saved = saved_by(lambda: seeded_dropout(x, 0.3))
    assert [(t.dtype, t.numel()) for t in saved] == [(torch.int64, 1)]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_draws_the_same_mask(reentrant: bool) -> None:
    x = torch.ones(1000, requires_grad=True)
    y = checkpoint(lambda t: seeded_dropout(t) * 1.0, x, use_reentrant=reentrant)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


@each_dropout
def test_gradcheck_and_gradgradcheck(drop: Callable[..., Tensor]) -> None:
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert_derivatives(lambda values: drop(values, 0.3) ** 2, x)


@pytest.mark.parametrize("kind", [SeededDropout, ForwardUnpackDropout])
def test_module_in_training_and_evaluation(kind: type[nn.Dropout]) -> None:
    module, x = kind(0.5), torch.ones(200)
    assert (module(x) == 0).any()
    assert module.eval()(x) is x


def test_opcheck() -> None:
    torch.library.opcheck(ops.seeded_dropout, (torch.randn(3, 37).t(), torch.tensor([4]), 0.3))


@each_dropout
def test_bad_options(drop: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"p: 2 .* 0 to 1"):
        drop(torch.ones(3), 2)
    with pytest.raises(TypeError, match="int64"):
        drop(torch.ones(3, dtype=torch.int64))
