"""packed_dropout against its definition, and against nn.Dropout bit for bit."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dropout_cases import assert_derivatives
from pmexp.packed_dropout import functional, native, packed_dropout, reference
from pmexp.variants.seeded import seeded_dropout
from saved_tensors import saved_by

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)
rates = st.one_of(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.floats(0.0, 1.0))
any_case = given(
    shape=shapes,
    dtype=st.sampled_from(DTYPES),
    p=rates,
    bits=st.sampled_from([1, 2, 4]),
    cache=st.booleans(),
    seed=st.integers(0, 2**31),
)


def input_and_gradient(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, g = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return x.requires_grad_(), g


@any_case
def test_equals_nn_dropout_bit_for_bit(
    shape: tuple[int, ...], dtype: torch.dtype, p: float, bits: int, cache: bool, seed: int
) -> None:
    x, g = input_and_gradient(shape, dtype, seed)
    torch.manual_seed(seed)
    expected = F.dropout(x, p)
    expected_grad = torch.autograd.grad(expected, x, g)[0]
    state_after = torch.get_rng_state()
    torch.manual_seed(seed)
    y = packed_dropout(x, p, bits=bits, cache_unpacked=cache, rng="torch")
    assert torch.equal(y, expected)
    assert torch.equal(torch.signbit(y), torch.signbit(expected))
    assert torch.equal(torch.autograd.grad(y, x, g)[0], expected_grad)
    assert torch.equal(torch.get_rng_state(), state_after)


@any_case
def test_forward_and_backward_apply_one_mask(
    shape: tuple[int, ...], dtype: torch.dtype, p: float, bits: int, cache: bool, seed: int
) -> None:
    _, g = input_and_gradient(shape, dtype, seed)
    ones = torch.ones(shape, dtype=dtype, requires_grad=True)
    torch.manual_seed(seed)
    scaled_mask = packed_dropout(ones, p, bits=bits, cache_unpacked=cache)
    grad = torch.autograd.grad(scaled_mask, ones, g)[0]
    keep = scaled_mask.detach() != 0
    assert torch.equal(scaled_mask, reference.apply_mask(torch.ones_like(g), keep, p))
    assert torch.equal(grad, reference.apply_mask(g, keep, p))


@any_case
def test_saves_packed_bits_and_nothing_else(
    shape: tuple[int, ...], dtype: torch.dtype, p: float, bits: int, cache: bool, seed: int
) -> None:
    x, _ = input_and_gradient(shape, dtype, seed)
    _, saved = saved_by(lambda: packed_dropout(x, p, bits=bits, cache_unpacked=cache))
    drops = 0 < p < 1 and x.numel() > 0
    assert [(t.dtype, t.numel()) for t in saved] == (
        [(torch.uint8, -(-x.numel() * bits // 8))] if drops else []
    )


@pytest.mark.parametrize("rng", ["philox", "torch"])
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(6, 5).t(),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(8, 8)[::2, 1::3],
        torch.randn(5, 1).expand(5, 4),
    ],
    ids=["transposed", "channels_last", "strided", "expanded"],
)
def test_any_layout(x: Tensor, rng: Any) -> None:
    torch.manual_seed(1)
    y = packed_dropout(x, 0.4, rng=rng)
    assert y.stride() == torch.empty_like(x).stride()
    kept = y != 0
    assert torch.equal(y[kept], (x * (torch.ones(()) / 0.6))[kept])
    if rng == "torch":
        torch.manual_seed(1)
        assert torch.equal(y, F.dropout(x, 0.4))


def test_eval_is_the_identity_and_saves_nothing() -> None:
    x = torch.randn(5, requires_grad=True)
    y, saved = saved_by(lambda: packed_dropout(x, 0.5, training=False))
    assert y is x and saved == []


@pytest.mark.parametrize("rng", ["philox", "torch"])
def test_gradcheck_and_gradgradcheck(rng: Any) -> None:
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert_derivatives(lambda values: packed_dropout(values, 0.3, rng=rng) ** 2, x)


def test_infinite_and_nan_inputs_behave_as_in_nn_dropout() -> None:
    x = torch.tensor([float("inf"), float("nan"), -1.0] * 20)
    torch.manual_seed(4)
    expected = F.dropout(x, 0.5)
    torch.manual_seed(4)
    assert torch.equal(packed_dropout(x, 0.5, rng="torch").nan_to_num(7), expected.nan_to_num(7))


def count_unpacking(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    unpacked = [0]
    originals = (functional.ops.unpack_bits, functional.ops.apply_packed_mask)

    def counting(original: Any) -> Any:
        def call(*args: Any) -> Any:
            unpacked[0] += 1
            return original(*args)

        return call

    monkeypatch.setattr(functional.ops, "_cpu_core", None)  # the core is called past the ops
    monkeypatch.setattr(native, "_calls", {-1: None})  # and so are they by native calls
    monkeypatch.setattr(functional.ops, "unpack_bits", counting(originals[0]))
    monkeypatch.setattr(functional.ops, "apply_packed_mask", counting(originals[1]))
    return unpacked


@pytest.mark.parametrize(("cache", "expected"), [(True, 1), (False, 3)])
def test_cache_unpacks_once_for_several_backwards(
    cache: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = count_unpacking(monkeypatch)
    x = torch.randn(100, requires_grad=True)
    y = packed_dropout(x, 0.5, cache_unpacked=cache).sum()
    grads = [torch.autograd.grad(y, x, retain_graph=True)[0] for _ in range(3)]
    assert unpacked[0] == expected
    assert torch.equal(grads[0], grads[1]) and torch.equal(grads[0], grads[2])


def test_a_graph_used_once_never_holds_the_unpacked_mask() -> None:
    """Otherwise every layer's byte mask would live as long as the loss tensor does."""
    x = torch.randn(100, requires_grad=True)
    with native.by_python():  # whose node says what it holds
        y = packed_dropout(x, 0.5, cache_unpacked=True)
    node = y.grad_fn
    y.sum().backward()
    assert node.keep is None  # type: ignore[union-attr]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("rng", ["philox", "torch"])
def test_checkpointing_recomputes_the_same_mask(reentrant: bool, rng: Any) -> None:
    x = torch.ones(1000, requires_grad=True)
    y = checkpoint(lambda t: packed_dropout(t, 0.5, rng=rng) * 1.0, x, use_reentrant=reentrant)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_seeded_by_torchs_generator() -> None:
    x = torch.ones(1000)
    torch.manual_seed(9)
    first, second = packed_dropout(x), packed_dropout(x)
    torch.manual_seed(9)
    assert torch.equal(packed_dropout(x), first)
    assert not torch.equal(first, second)


def test_inplace_writes_into_the_input() -> None:
    leaf = torch.ones(50, requires_grad=True)
    x = leaf * 1.0
    y = packed_dropout(x, 0.5, inplace=True)
    assert y.data_ptr() == x.data_ptr()
    y.sum().backward()
    assert torch.equal(leaf.grad, y.detach())


def test_bad_options_name_what_is_allowed() -> None:
    x = torch.ones(3)
    with pytest.raises(ValueError, match=r"p: 1\.5 .* 0 to 1"):
        packed_dropout(x, 1.5)
    with pytest.raises(ValueError, match="allowed are 1, 2 and 4"):
        packed_dropout(x, bits=8)
    with pytest.raises(ValueError, match="allowed are philox, torch"):
        packed_dropout(x, rng="mt19937")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int64"):
        packed_dropout(torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize("drop", [packed_dropout, seeded_dropout, F.dropout])
@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.25, False), (0.0, False)])
def test_where_nothing_is_dropped_any_tensor_passes_as_it_does_in_torch(
    drop: Any, p: float, training: bool
) -> None:
    eye = torch.eye(4)
    for x in (eye.long(), eye.bool(), eye.to(torch.complex64), eye.to_sparse()):
        assert drop(x, p, training) is x


@settings(max_examples=20)
@given(st.integers(1, 300), st.sampled_from([1, 2, 4]))
def test_ops_pass_opcheck(numel: int, bits: int) -> None:
    x, seed = torch.randn(numel), torch.tensor([numel])
    packed = torch.ops.pmexp.packed_dropout(x, seed, 0.3, bits)[1]
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.pmexp.packed_dropout.default, (x, seed, 0.3, bits), test_utils=checks)
    torch.library.opcheck(
        torch.ops.pmexp.apply_packed_mask.default, (x, packed, 0.3, bits), test_utils=checks
    )
    torch.library.opcheck(torch.ops.pmexp.pack_bits.default, (x > 0, bits), test_utils=checks)
    torch.library.opcheck(torch.ops.pmexp.unpack_bits.default, (packed, [numel], bits), test_utils=checks)


def test_a_rate_may_be_a_tensor_of_one_number() -> None:
    x = torch.ones(64)
    torch.manual_seed(0)
    expected = packed_dropout(x, 0.25)
    torch.manual_seed(0)
    assert torch.equal(packed_dropout(x, torch.tensor(0.25)), expected)  # type: ignore[arg-type]
