"""The draw of torch's own CUDA dropout, word by word, against accounts of it that are written another way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_cases import DTYPES
from philox_words import thread_by_thread
from pmexp.packed_dropout import (
    cuda_mapping,
    functional,
    ops,
    pack_bits,
    reference,
)
from triton_interpreter import Interpreter

rates = st.one_of(st.sampled_from([0.1, 0.5]), st.floats(1e-9, 1 - 1e-9))


@settings(max_examples=25)
@given(
    numel=st.integers(1, 3000),
    vector=st.sampled_from([1, 2, 4, 8]),
    blocks=st.integers(1, 2),
    seed=st.integers(0, 2**64 - 1),
    offset=st.integers(0, 2**40).map(lambda n: 4 * n),
)
def test_words_are_those_the_threads_take(
    numel: int, vector: int, blocks: int, seed: int, offset: int
) -> None:
    numel += -numel % vector
    state = torch.tensor([seed - (seed >> 63 << 64), offset])
    actual = cuda_mapping.native_words(numel, state, 256 * blocks, vector)
    expected, most_calls = thread_by_thread(numel, seed, offset, 256 * blocks, vector)
    assert actual.tolist() == expected
    if vector in (1, 4):  # vectors of 2 and 8 take more words than native_dropout reserves
        assert cuda_mapping.offset_increment(numel, 256 * blocks) == 4 * most_calls


_TORCHS_HELPERS = Path(torch.__file__).parent / "_inductor" / "runtime" / "triton_helpers.py"


@pytest.mark.skipif(
    "def rand_eager_kernel" not in _TORCHS_HELPERS.read_text(),
    reason=f"torch {torch.__version__} has no such account; 2.13 has",
)
@pytest.mark.parametrize("vector", [4, 8])
@pytest.mark.parametrize("seed", [0, 5, 2**40 + 7])
def test_words_are_those_of_torchs_own_account(interpreter: Interpreter, vector: int, seed: int) -> None:
    """torch.compile uses rand_eager_kernel to draw as eager CUDA does. It gives 1 - uniform."""
    numel, threads, offset = 5000, 512, 4 * 2**33
    element = torch.arange(numel)
    place, turn = element % (threads * vector), element // (threads * vector)
    call = offset // 4 + turn * (vector // 4)
    words = cuda_mapping.native_words(numel, torch.tensor([seed, offset]), threads, vector)
    expected = 1.0 - cuda_mapping.uniform(words)
    assert torch.equal(interpreter.rand_eager(place, call, seed, vector), expected)


def test_uniform_is_curands() -> None:
    """Both ends of (0, 1] are reached, and float32 arithmetic, checked against NumPy's."""
    words = np.concatenate([np.array([0, 1, 2**32 - 1]), np.random.default_rng(0).integers(0, 2**32, 10000)])
    expected = words.astype(np.uint32).astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
    actual = cuda_mapping.uniform(torch.from_numpy(words))
    assert np.array_equal(actual.numpy(), expected)
    assert actual[0] == 2.0**-33 and actual[2] == 1.0


def test_thresholds_known_from_the_float_predicate() -> None:
    assert cuda_mapping.threshold(0.1, torch.float32) == 3865470336
    assert cuda_mapping.threshold(0.5, torch.float32) == 2147483584
    assert cuda_mapping.threshold(0.5, torch.bfloat16) == cuda_mapping.threshold(0.5, torch.float32)
    assert cuda_mapping.threshold(0.1, torch.float64) != cuda_mapping.threshold(0.1, torch.float32)


@given(st.floats(0.0, 1.0, exclude_max=True), st.sampled_from(DTYPES), st.integers(0, 2**32 - 1))
def test_the_threshold_is_the_float_comparison(p: float, dtype: torch.dtype, word: int) -> None:
    """They agree at both sides of the threshold and at any word, in NumPy's float32 and, for float64, its doubles."""
    wide = np.float64 if dtype is torch.float64 else np.float32
    threshold = cuda_mapping.threshold(p, dtype)
    for w in (word, max(threshold - 1, 0), min(threshold, 2**32 - 1), 0, 2**32 - 1):
        uniform = np.float32(np.uint32(w)) * np.float32(2.0**-32) + np.float32(2.0**-33)
        assert (w < threshold) == bool(wide(uniform) < wide(1.0 - p))


@given(st.floats(0.0, 1.0, exclude_max=True))
def test_scales_are_rounded_as_the_kernels_round(p: float) -> None:
    """Forward divides in float32 by a rounded 1 - p; backward rounds a quotient of doubles."""
    kept = np.float32(1.0 - p)
    assert reference.kept_scale(p, torch.bfloat16) == float(np.float32(1.0) / kept)
    assert reference.kept_scale(p, torch.float64) == 1.0 / (1.0 - p)
    rounded = reference.rounded(cuda_mapping.backward_scale(p), torch.float32)
    assert rounded == float(np.float32(1.0 / (1.0 - p)))


def test_forward_and_backward_scales_differ_for_some_p() -> None:
    differing = [
        p
        for p in (i / 1000 for i in range(1, 1000))
        if reference.kept_scale(p, torch.float32)
        != reference.rounded(cuda_mapping.backward_scale(p), torch.float32)
    ]
    assert differing


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_rounded_once(dtype: torch.dtype) -> None:
    x = torch.randn(999).to(dtype)
    y, packed = ops.native_dropout(x, torch.tensor([3, 0]), 0.3, 1, 1024, 1)
    keep = ops.unpack_bits(packed, x.shape, 1)
    wide = np.float64 if dtype is torch.float64 else np.float32
    product = x.to(torch.float64).numpy().astype(wide) * keep.numpy() * wide(wide(1) / wide(0.7))
    assert torch.equal(y, torch.from_numpy(product).to(dtype))
    assert torch.equal(torch.signbit(y), torch.signbit(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_applying_a_mask_is_atens_backward(dtype: torch.dtype, bits: int) -> None:
    """In these dtypes the CPU's native_dropout_backward computes as CUDA's does."""
    grad, keep = torch.randn(7, 31).to(dtype), torch.rand(7, 31) < 0.6
    expected = torch.ops.aten.native_dropout_backward(grad, keep, 1 / 0.7)
    packed, scale = pack_bits(keep, bits), cuda_mapping.backward_scale(0.3)
    for mask in (None, keep):
        assert torch.equal(functional.apply_bits(grad, packed, 0.3, bits, scale, mask), expected)


@pytest.mark.parametrize(
    ("numel", "device", "threads", "increment"),
    [
        (1, (108, 2048), 256, 4),
        (256, (108, 2048), 256, 4),
        (257, (108, 2048), 512, 4),
        (10**6, (108, 2048), 221184, 8),
        (4 * 270336, (132, 2048), 270336, 4),
        (4 * 270336 + 1, (132, 2048), 270336, 8),
        (10**6, (40, 1536), 61440, 20),
    ],
)
def test_launch_geometry(numel: int, device: tuple[int, int], threads: int, increment: int) -> None:
    assert cuda_mapping.thread_count(numel, *device) == threads
    assert cuda_mapping.offset_increment(numel, threads) == increment


@pytest.mark.parametrize(
    ("numel", "itemsize", "address", "vector"),
    [
        (4096, 4, 512, 4),
        (4096, 2, 512, 8),
        (4096, 8, 512, 2),
        (4096, 4, 520, 2),
        (4096, 4, 516, 1),
        (4098, 4, 512, 2),
        (4100, 2, 512, 4),
        (4097, 2, 512, 1),
    ],
)
def test_vector_size(numel: int, itemsize: int, address: int, vector: int) -> None:
    assert cuda_mapping.vector_size(numel, itemsize, address) == vector
