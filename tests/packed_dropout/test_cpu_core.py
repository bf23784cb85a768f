"""The C++ core against the plain-torch reference, bit for bit, on every instruction set of this machine."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core_cases import (
    BACKENDS,
    DTYPES,
    LARGE,
    WIDTHS,
    assert_same,
    each_backend,
    each_width,
    needs_core,
    values,
)
from pmexp.packed_dropout import cpu, reference

pytestmark = [needs_core, pytest.mark.usefixtures("two_threads")]

PROBABILITIES = [0.0, 1e-12, 1e-9, 0.1, 1 / 3, 0.5, 1 - 1e-9, 1 - 1e-12, 1.0]  # both ends of the threshold

SEEDS = [0, 1, 2**32 - 1, 2**32, 2**62 - 1, 2**63 - 1, -1, -(2**63)]

SIZES = [0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 1001]

GUARD = 64

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def assert_core_is_reference(backend: str, x: Tensor, seed: int, p: float, bits: int) -> None:
    """Compares all ops on one input."""
    core, seed_tensor = cpu.Core(backend), torch.tensor([seed])
    keep = reference.draw_mask(x.shape, seed_tensor, p)
    packed = reference.pack_bits(keep, bits)
    expected = reference.apply_mask(x, keep, p)
    y, core_packed = core.packed_dropout(x, seed_tensor, p, bits)
    assert_same(core_packed, packed)
    assert_same(y, expected)
    assert_same(core.apply_packed_mask(x, packed, p, bits), expected)
    assert_same(core.seeded_dropout(x, seed_tensor, p), expected)
    y, core_packed = core.bias_dropout_add(x, None, x, seed_tensor, p, bits)
    assert_same(core_packed, packed)
    assert_same(y, expected + x)
    assert_same(core.pack_bits(keep, bits), packed)
    assert_same(core.unpack_bits(packed, x.shape, bits), keep)


@each_backend
@each_dtype
@each_width
def test_every_size_equals_the_reference(backend: str, dtype: torch.dtype, bits: int) -> None:
    for numel in SIZES:
        for p in PROBABILITIES:
            assert_core_is_reference(backend, values((numel,), dtype), SEEDS[numel % len(SEEDS)], p, bits)


@each_backend
@pytest.mark.parametrize("seed", SEEDS)
def test_every_seed_equals_the_reference(backend: str, seed: int) -> None:
    assert_core_is_reference(backend, values((5, 67), torch.float32), seed, 0.3, 1)


@each_backend
@each_width
def test_large_tensors_equal_the_reference(backend: str, bits: int) -> None:
    for dtype in DTYPES:
        assert_core_is_reference(backend, values((LARGE,), dtype), 11, 0.1, bits)


@each_backend
@settings(deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(0, 12), max_size=4).map(tuple),
    seed=st.integers(-(2**63), 2**63 - 1),
    p=st.floats(0, 1),
    bits=st.sampled_from(WIDTHS),
    dtype=st.sampled_from(DTYPES),
)
def test_any_input_equals_the_reference(
    backend: str, shape: tuple[int, ...], seed: int, p: float, bits: int, dtype: torch.dtype
) -> None:
    assert_core_is_reference(backend, values(shape, dtype), seed, p, bits)


@each_backend
@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x.transpose(1, 3),
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x[:, ::2, 1:, ::3],
        lambda x: x[:, :1].expand(-1, 7, -1, -1),
    ],
    ids=["transposed", "channels_last", "sliced", "expanded"],
)
def test_layouts_equal_the_reference(backend: str, layout: Callable[[Tensor], Tensor]) -> None:
    for bits in WIDTHS:
        assert_core_is_reference(backend, layout(values((3, 6, 9, 11), torch.float32)), 3, 0.4, bits)


@each_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.1, 1 / 3, 0.5, 0.999, 1.0])
def test_every_16_bit_value_is_scaled_as_torch_does(backend: str, dtype: torch.dtype, p: float) -> None:
    x = torch.arange(2**16).to(torch.int16).view(dtype)
    for keep in (torch.ones(2**16, dtype=torch.bool), torch.zeros(2**16, dtype=torch.bool)):
        y = cpu.Core(backend).apply_packed_mask(x, reference.pack_bits(keep), p, 1)
        assert_same(y, reference.apply_mask(x, keep, p))


@each_backend
@each_dtype
def test_special_values(backend: str, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    small = [0.0, -0.0, limits.tiny, limits.smallest_normal / 4]
    x = torch.tensor([*small, torch.inf, -torch.inf, torch.nan, limits.max], dtype=dtype).repeat(2, 5)
    keep = torch.tensor([[True], [False]]).expand(2, 40)
    y = cpu.Core(backend).apply_packed_mask(x, reference.pack_bits(keep), 0.3, 1)
    assert_same(y, reference.apply_mask(x, keep, 0.3))
    assert y[1, 4].isnan()  # inf * 0: a dropped infinity shows, as in nn.Dropout
    assert torch.signbit(y[1, 1])


def guarded(numel: int, dtype: torch.dtype, poison: int) -> tuple[Tensor, Tensor]:
    """A tensor full of poison inside a larger poisoned buffer, and that buffer's bytes."""
    size = torch.empty((), dtype=dtype).element_size()
    buffer = torch.full((GUARD + (numel + 1) * size + GUARD,), poison, dtype=torch.uint8)
    start = GUARD + size  # one element off the alignment of the vectors
    return buffer[start : start + numel * size].view(dtype), buffer


def assert_guards(buffer: Tensor, view: Tensor, poison: int) -> None:
    start = GUARD + view.element_size()
    end = start + view.numel() * view.element_size()
    assert (buffer[:start] == poison).all()
    assert (buffer[end:] == poison).all()


@each_backend
@each_dtype
@each_width
@pytest.mark.parametrize("poison", [0xAA, 0xFF])  # 0xFF: a NaN in every floating dtype
def test_outputs_are_written_whole_and_not_beyond(
    backend: str, dtype: torch.dtype, bits: int, poison: int
) -> None:
    core, seed = cpu.Core(backend), torch.tensor([77])
    for numel in SIZES:
        x, _ = guarded(numel, dtype, poison)
        x.copy_(values((numel,), dtype))
        keep = reference.draw_mask(x.shape, seed, 0.4)
        y, y_buffer = guarded(numel, dtype, poison)
        packed, packed_buffer = guarded(reference.packed_bytes(numel, bits), torch.uint8, poison)
        mask_bytes, mask_buffer = guarded(numel, torch.uint8, poison)
        mask = mask_bytes.view(torch.bool)

        core.dropout_into(y, packed, x, seed, 0.4, bits)
        assert_same(packed, reference.pack_bits(keep, bits))
        assert_same(y, reference.apply_mask(x, keep, 0.4))
        y_buffer.fill_(poison)
        core.dropout_into(y, None, x, seed, 0.4)
        assert_same(y, reference.apply_mask(x, keep, 0.4))
        y_buffer.fill_(poison)
        core.scale_mask_into(y, packed, x, reference.kept_scale(0.4, dtype), bits)
        assert_same(y, reference.apply_mask(x, keep, 0.4))
        y_buffer.fill_(poison)
        packed_buffer.fill_(poison)
        core.bias_dropout_add_into(y, packed, x, x[:0] if not numel else x.clone(), x, seed, 0.4, bits)
        assert_same(y, reference.apply_mask(x + x, keep, 0.4) + x)
        core.unpack_bits_into(mask, packed, bits)
        assert_same(mask, keep)
        packed_buffer.fill_(poison)
        core.pack_bits_into(packed, mask, bits)
        assert_same(packed, reference.pack_bits(keep, bits))
        for buffer, view in ((y_buffer, y), (packed_buffer, packed), (mask_buffer, mask_bytes)):
            assert_guards(buffer, view, poison)


@each_backend
def test_wrong_arguments_are_refused_before_the_core_sees_them(backend: str) -> None:
    core, seed, x = cpu.Core(backend), torch.tensor([1]), torch.ones(20)
    with pytest.raises(ValueError, match="packed mask"):
        core.apply_packed_mask(x, torch.zeros(2, dtype=torch.uint8), 0.1, 1)
    with pytest.raises(ValueError, match="packed mask"):
        core.unpack_bits(torch.zeros(3, dtype=torch.int8), (20,), 1)
    with pytest.raises(ValueError, match="seed"):
        core.packed_dropout(x, torch.tensor([1], dtype=torch.int32), 0.1, 1)
    with pytest.raises(ValueError, match="seed"):
        core.packed_dropout(x, torch.tensor([1, 2]), 0.1, 1)
    with pytest.raises(ValueError, match="bits"):
        core.packed_dropout(x, seed, 0.1, 3)
    with pytest.raises(TypeError, match="float8"):
        core.packed_dropout(x.to(torch.float8_e4m3fn), seed, 0.1, 1)


def test_pack_bits_takes_zeros_and_ones_of_any_dtype() -> None:
    mask = reference.draw_mask(torch.Size((3, 50)), torch.tensor([4]), 0.5)
    for dtype in (torch.uint8, torch.int64, torch.float32, torch.bfloat16):
        assert_same(cpu.Core(BACKENDS[0]).pack_bits(mask.to(dtype), 2), reference.pack_bits(mask, 2))
