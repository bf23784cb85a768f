"""The Triton kernels against the torch references, bit for bit: interpreted on the CPU, and compiled for a GPU
that need not be there. Every tensor lies between guard bytes, and unwritten memory holds NaN or 255."""

import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pmexp.packed_dropout import cuda_mapping, reference
from triton_interpreter import Interpreter

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
TAILS = [0, 1, 7, 8, 9, 31, 33, 1001]
each_width = pytest.mark.parametrize("bits", [1, 2, 4])

shapes = st.one_of(
    st.sampled_from(TAILS).map(lambda n: (n,)),
    st.sampled_from([4096, 4097, 8191]).map(lambda n: (n,)),  # about a program's 4096 elements
    st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    st.just(()),
)
rates = st.one_of(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.floats(0.0, 1.0))
seeds = st.integers(-(2**63), 2**63 - 1)
any_case = given(
    shape=shapes, dtype=st.sampled_from(DTYPES), p=rates, bits=st.sampled_from([1, 2, 4]), seed=seeds
)
# An interpreted launch takes a tenth of a second.
few = settings(max_examples=15, deadline=None)


def values(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed % 2**32)).to(dtype)


def assert_same(actual: Tensor | tuple[Tensor, ...], expected: Tensor | tuple[Tensor, ...]) -> None:
    """Asserts the same bits, signs of zeros included, in the same layout."""
    if isinstance(expected, tuple):
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other)
        return
    assert isinstance(actual, Tensor)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.numel() < 2 or actual.stride() == expected.stride()
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[expected.element_size()]
    assert torch.equal(actual.contiguous().view(whole), expected.contiguous().view(whole))


@pytest.mark.slow
@few
@any_case
def test_packed_and_seeded_dropout(
    interpreter: Interpreter, shape: tuple[int, ...], dtype: torch.dtype, p: float, bits: int, seed: int
) -> None:
    x, seed_tensor = values(shape, dtype, seed), torch.tensor([seed])
    expected = reference.packed_dropout(x, seed_tensor, p, bits)
    assert_same(interpreter.packed_dropout(x, seed_tensor, p, bits), expected)
    assert_same(interpreter.packed_dropout(x, seed, p, bits), expected)
    assert_same(interpreter.packed_dropout_of_seed_at_address(x, seed_tensor, p, bits), expected)
    assert_same(interpreter.seeded_dropout(x, seed_tensor, p), expected[0])


@few
@any_case
def test_applying_packing_and_unpacking_a_mask(
    interpreter: Interpreter, shape: tuple[int, ...], dtype: torch.dtype, p: float, bits: int, seed: int
) -> None:
    x = values(shape, dtype, seed)
    keep = values(shape, torch.float32, seed + 1) > 0
    packed = reference.pack_bits(keep, bits)
    assert_same(interpreter.pack_bits(keep, bits), packed)
    assert_same(interpreter.unpack_bits(packed, shape, bits), keep)
    assert_same(interpreter.apply_packed_mask(x, packed, p, bits), reference.apply_mask(x, keep, p))
    scaled = reference.scale_packed_mask(x, packed, 1.1 + p, bits)
    assert_same(interpreter.scale_packed_mask(x, packed, 1.1 + p, bits), scaled)


@few
@given(
    rows=st.integers(1, 70),
    columns=st.one_of(st.integers(1, 70), st.sampled_from([8, 64, 768, 2056])),
    dtype=st.sampled_from(DTYPES),
    p=rates,
    bits=st.sampled_from([1, 2, 4]),
    seed=seeds,
    with_bias=st.booleans(),
)
def test_bias_dropout_add(
    interpreter: Interpreter,
    rows: int,
    columns: int,
    dtype: torch.dtype,
    p: float,
    bits: int,
    seed: int,
    with_bias: bool,
) -> None:
    rows = min(rows, 1 + 9000 // columns)
    x, residual = values((rows, columns), dtype, seed), values((rows, columns), dtype, seed + 1)
    bias = values((columns,), dtype, seed + 2) if with_bias else None
    arguments = (x, bias, residual, torch.tensor([seed]), p, bits)
    assert_same(interpreter.bias_dropout_add(*arguments), reference.bias_dropout_add(*arguments))


@few
@given(
    numel=st.one_of(st.sampled_from(TAILS[1:]), st.integers(1, 6000)),
    vector=st.sampled_from([1, 2, 4, 8]),
    blocks=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    p=st.floats(0.0, 1.0, exclude_max=True),
    bits=st.sampled_from([1, 2, 4]),
    seed=seeds,
    offset=st.integers(0, 2**62).map(lambda n: 4 * (n // 4)),
)
def test_native_dropout(
    interpreter: Interpreter,
    numel: int,
    vector: int,
    blocks: int,
    dtype: torch.dtype,
    p: float,
    bits: int,
    seed: int,
    offset: int,
) -> None:
    x = values((numel,), dtype, seed)
    arguments = (x, torch.tensor([seed, offset]), p, bits, 256 * blocks, vector)
    assert_same(interpreter.native_dropout(*arguments), cuda_mapping.native_dropout(*arguments))


@each_width
@pytest.mark.parametrize("numel", TAILS)
def test_tails(interpreter: Interpreter, numel: int, bits: int) -> None:
    x, seed = values((numel,), torch.float32), torch.tensor([numel])
    assert_same(interpreter.packed_dropout(x, seed, 0.3, bits), reference.packed_dropout(x, seed, 0.3, bits))


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(6, 5).t(),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(8, 8)[::2, 1::3],
        torch.randn(5, 1).expand(5, 4),
        torch.randn(65)[1:],
    ],
    ids=["transposed", "channels_last", "strided", "expanded", "offset"],
)
def test_any_layout(interpreter: Interpreter, x: Tensor) -> None:
    seed, state = torch.tensor([3]), torch.tensor([3, 8])
    y, packed = reference.packed_dropout(x, seed, 0.4, 1)
    assert_same(interpreter.packed_dropout(x, seed, 0.4, 1), (y, packed))
    assert_same(interpreter.apply_packed_mask(x, packed, 0.4, 1), y)
    residual = torch.randn(x.shape).t().contiguous().t() if x.dim() == 2 else torch.randn(x.shape)
    arguments = (x, x[:1].flatten()[: x.shape[-1]] if x.dim() == 2 else None, residual, seed, 0.4, 1)
    assert_same(interpreter.bias_dropout_add(*arguments), reference.bias_dropout_add(*arguments))
    native = cuda_mapping.native_dropout(x, state, 0.4, 1, 256, 1)
    assert_same(interpreter.native_dropout(x, state, 0.4, 1, 256, 1), native)
    assert_same(interpreter.pack_bits(x > 0, 2), reference.pack_bits(x > 0, 2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 2.0**-40, 0.3, 1 - 1e-6, 1 - 2.0**-40, 1.0])
def test_ends_of_p_and_of_the_values(interpreter: Interpreter, dtype: torch.dtype, p: float) -> None:
    """It holds for thresholds of 0 and 2**32, a scale that float16 cannot hold, subnormals, and 0 * inf = NaN."""
    special = [float("inf"), -float("inf"), float("nan"), -1.0, -0.0, torch.finfo(dtype).smallest_normal / 4]
    x, seed = torch.tensor(special * 20, dtype=dtype), torch.tensor([7])
    y, packed = interpreter.packed_dropout(x, seed, p, 1)
    expected, expected_packed = reference.packed_dropout(x, seed, p, 1)
    assert torch.equal(y.isnan(), expected.isnan())
    assert_same((y.nan_to_num(7), packed), (expected.nan_to_num(7), expected_packed))


@pytest.mark.parametrize("program", [0, 1, 2**23 - 1, 2**23, 2**31 + 5, 2**40])
def test_counters_beyond_32_bits(interpreter: Interpreter, program: int) -> None:
    """Words of a program far off are those of the definition: word w of counter 8 b + l is element 32 b + 8 w + l.
    Program 2**23 is the first whose counters have a high word."""
    blocks, seed, threshold = 64, -3, 2**31
    counter = 8 * blocks * program + torch.arange(8 * blocks)
    zero, one = torch.tensor(0), torch.tensor(seed)
    key = (one & 0xFFFFFFFF, (one >> 32) & 0xFFFFFFFF)
    words = torch.stack(reference.philox((counter & 0xFFFFFFFF, counter >> 32, zero, zero), key))
    kept = (words < threshold).view(4, blocks, 8).transpose(0, 1).reshape(blocks, 32).long()
    expected = (kept << torch.arange(32)).sum(1).to(torch.int32)
    actual = interpreter.words_of_program(program, torch.tensor([seed]), threshold, blocks)
    assert torch.equal(actual, expected)


@few
@given(seed=seeds, counters=st.integers(0, 2**32 - 1))
def test_the_kernels_own_philox_is_the_definition(interpreter: Interpreter, seed: int, counters: int) -> None:
    """For other tests the interpreter draws by the reference's. Counters are words and scalars, as the kernels'."""
    given = torch.Generator().manual_seed(counters)
    counter = torch.randint(2**32, (3, 64), generator=given)
    c0, c1, c2 = counter
    zero, key = torch.tensor(0), (torch.tensor(seed & 0xFFFFFFFF), torch.tensor(seed >> 32 & 0xFFFFFFFF))
    of_scalars = reference.philox((c0, c2[:1], zero, zero), key)
    expected = [word.expand(64) for word in (*of_scalars, *reference.philox((c0, c1, c2, zero), key))]
    assert torch.equal(interpreter.philox(counter, torch.tensor([seed])), torch.stack(expected))


def test_a_word_at_the_threshold_is_dropped(interpreter: Interpreter) -> None:
    seed = torch.tensor([11])
    word = int(reference.random_words(1, seed)[0])
    for threshold, kept in ((word - 1, 0), (word, 0), (word + 1, 1)):
        assert int(interpreter.words_of_program(0, seed, threshold, 64)[0]) & 1 == kept


@pytest.mark.parametrize("vector", [1, 2, 4, 8])
@pytest.mark.parametrize("program", [0, 2**21, 2**33 + 1])
def test_native_draw_beyond_32_bits(interpreter: Interpreter, program: int, vector: int) -> None:
    """It is checked element by element in Python's integers, for elements and calls that 32 bits do not count."""
    blocks, threads, offset, threshold = 64, 270336, 2**34, 2**31
    element = [2048 * program + i for i in range(2048)]
    if vector == 1:
        call = [e // (4 * threads) for e in element]
        thread = [e % threads for e in element]
        word = [e % (4 * threads) // threads for e in element]
    else:
        call = [
            e // (threads * vector) * max(vector // 4, 1) + e % (threads * vector) % vector // 4
            for e in element
        ]
        thread = [e % (threads * vector) // vector for e in element]
        word = [e % vector % 4 for e in element]
    counter = offset // 4 + torch.tensor(call)
    key, zero = (torch.tensor(5), torch.tensor(0)), torch.zeros(2048, dtype=torch.int64)
    four = reference.philox((counter & 0xFFFFFFFF, counter >> 32, torch.tensor(thread), zero), key)
    kept = (torch.stack(four).gather(0, torch.tensor(word)[None])[0] < threshold).view(blocks, 32).long()
    expected = (kept << torch.arange(32)).sum(1).to(torch.int32)
    actual = interpreter.native_words_of_program(program, 5, offset, threads, threshold, vector, blocks)
    assert torch.equal(actual, expected)


def test_refusals_name_what_is_allowed(interpreter: Interpreter) -> None:
    x, seed = torch.ones(9), torch.tensor([1])
    packed = torch.zeros(2, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"takes torch.float32, .*, got torch.int64"):
        interpreter.packed_dropout(x.long(), seed, 0.5, 1)
    with pytest.raises(ValueError, match="allowed are 1, 2 and 4"):
        interpreter.packed_dropout(x, seed, 0.5, 3)
    with pytest.raises(ValueError, match=r"seed: one torch\.int64 is needed, 1 x torch\.int32"):
        interpreter.seeded_dropout(x, seed.int(), 0.5)
    with pytest.raises(ValueError, match=r"9 values at 2 bit\(s\) take 3 x torch.uint8"):
        interpreter.apply_packed_mask(x, packed, 0.5, 2)
    with pytest.raises(ValueError, match=r"17 values at 1 bit\(s\) take 3 x torch.uint8"):
        interpreter.unpack_bits(packed, (17,), 1)
    with pytest.raises(ValueError, match=r"residual: \(8,\)"):
        interpreter.bias_dropout_add(x, None, torch.ones(8), seed, 0.5, 1)
    with pytest.raises(ValueError, match=r"state: two torch\.int64 are needed"):
        interpreter.native_dropout(x, seed, 0.5, 1, 256, 1)


@pytest.fixture(scope="module")
def kernels() -> Any:
    """Gives triton_kernels as it runs on a GPU, compiled."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    from pmexp.packed_dropout import triton_kernels

    return triton_kernels


@pytest.mark.parametrize("name", reference.OPERATORS | cuda_mapping.OPERATORS)
def test_launchers_have_the_signatures_of_the_references(kernels: Any, name: str) -> None:
    definition = (reference.OPERATORS | cuda_mapping.OPERATORS)[name]
    assert list(inspect.signature(getattr(kernels, name)).parameters) == list(
        inspect.signature(definition).parameters
    )


@pytest.fixture
def compiled(kernels: Any, shared_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Gives every kernel that is launched, which compiles it for compute capability 9.0 and ends there."""
    from pmexp.bench.kernel_code import compiling

    monkeypatch.setenv("TRITON_CACHE_DIR", str(shared_tmp / "triton"))
    with compiling(90) as kernels_by_name:
        yield kernels_by_name


def ptx_of(compiled: dict[str, Any]) -> list[str]:
    return [kernel.asm["ptx"] for kernel in compiled.values()]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_the_compiler_makes_of_the_kernels(
    kernels: Any, compiled: dict[str, Any], dtype: torch.dtype
) -> None:
    """Elements are loaded and stored 16 bytes at a time, no product is fused with a sum, no subnormal is lost,
    and each mask is drawn once: 32 elements a thread are 8 calls of 10 rounds with 2 wide products. The
    compiler has made nine times that of it."""
    x, seed, state = values((64, 768), dtype), torch.tensor([5]), torch.tensor([-5, 8])
    kernels.packed_dropout(x, seed, 0.1, 1)
    kernels.seeded_dropout(x, seed, 0.1)
    kernels.bias_dropout_add(x, x[0], x, seed, 0.1, 4)
    kernels.native_dropout(x, state, 0.1, 1, 256, 4)
    kernels.native_dropout(x, state, 0.1, 2, 256, 8)
    for ptx in ptx_of(compiled):
        assert ptx.count("mul.hi.u32") + ptx.count("mul.wide.u32") < 180
    kernels.native_dropout(x, state, 0.1, 1, 256, 1)  # a call an element
    kernels.apply_packed_mask(x, torch.zeros(64 * 96, dtype=torch.uint8), 0.1, 1)
    assert len(compiled) == 7
    for ptx in ptx_of(compiled):
        assert "ld.global.v4.b32" in ptx and "st.global.v4.b32" in ptx
        assert "fma." not in ptx and "ftz" not in ptx
        assert dtype != torch.bfloat16 or "cvt.rn.bf16" in ptx


@pytest.mark.slow
def test_kernels_compile_for_any_size(kernels: Any, compiled: dict[str, Any]) -> None:
    """Compiling checks types, which the interpreter does not; a size of 1 is a constant for Triton."""
    seed = torch.tensor([5])
    for x in (torch.ones(1, 1, dtype=torch.float64), torch.ones(5, 7, dtype=torch.float16)):
        with mock.patch.object(kernels, "_address_and_key", lambda seed: (seed, 0)):
            kernels.packed_dropout(x, seed, 0.1, 1)
        packed = kernels.pack_bits(x > 0, 4)
        kernels.unpack_bits(packed, x.shape, 4)
        kernels.apply_packed_mask(x, packed, 0.1, 4)
        kernels.bias_dropout_add(x, x[0], x, seed, 0.1, 2)
        kernels.native_dropout(x, torch.tensor([1, 4]), 0.1, 1, 256, 2)
    kernels.packed_dropout(torch.ones(0), seed, 0.1, 1)
    assert len(compiled) == 2 * 6 + 1


@pytest.mark.slow
def test_another_mask_compiles_nothing(kernels: Any, compiled: dict[str, Any]) -> None:
    x, packed = torch.ones(4096), torch.zeros(512, dtype=torch.uint8)
    for p, seed, offset in ((0.1, 5, 0), (0.5, 2**40, 16), (1 / 3, 1, 4), (0.0, -1, 2**40)):
        kernels.packed_dropout(x, torch.tensor([seed]), p, 1)
        kernels.native_dropout(x, torch.tensor([seed, offset]), p, 1, 256, 4)
        kernels.apply_packed_mask(x, packed, p, 1)
        assert len(compiled) == 3
