"""The draw of torch's own CUDA dropout, against accounts of it that are written another way. No GPU here: a
generator, two device properties and native_dropout itself are stood in for."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cuda_state import CudaState
from philox_words import four_words
from pmexp.packed_dropout import (
    backend,
    cuda_backend,
    cuda_mapping,
    cuda_rng,
    functional,
    native,
    ops,
    pack_bits,
    reference,
    torch_rng_record,
)
from triton_interpreter import Interpreter

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
rates = st.one_of(st.sampled_from([0.1, 0.5]), st.floats(1e-9, 1 - 1e-9))


def thread_by_thread(numel: int, seed: int, offset: int, threads: int, vector: int) -> tuple[list[int], int]:
    """The word of each element as the threads of Dropout.cu take them one after another, and the most calls
    that a thread makes."""
    words, most_calls = [-1] * numel, 0
    for thread in range(threads):
        calls = iter(range(offset // 4, 2**63))
        taken = 0
        stride = threads * (4 if vector == 1 else vector)
        end = -(-numel // stride) * stride if vector == 1 else numel
        for start in range(thread * vector, end, stride):
            drawn: list[int] = []
            while len(drawn) < vector:
                drawn += four_words(seed, next(calls), thread)
                taken += 1
            for i in range(4 if vector == 1 else vector):
                element = start + i * threads if vector == 1 else start + i
                if element < numel:
                    words[element] = drawn[i]
        most_calls = max(most_calls, taken)
    return words, most_calls


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


class Device(CudaState):
    """Answers what cuda_rng asks of a CUDA device, for CPU tensors: one multiprocessor for 512 threads, a generator,
    and native_dropout thread by thread."""

    def native_dropout(self, x: Tensor, p: float, train: bool) -> tuple[Tensor, Tensor]:
        assert train
        threads = 256 * min(2, -(-x.numel() // 256))
        vector = 16 // x.element_size()
        while x.numel() % vector or x.data_ptr() % (vector * x.element_size()):
            vector //= 2
        offset = self.offset + 4 * self.extra_calls
        words, _ = thread_by_thread(x.numel(), self.seed, offset, threads, vector)
        self.offset += 4 * -(-x.numel() // (4 * threads))
        wide = np.float64 if x.dtype is torch.float64 else np.float32
        uniform = np.array(words, np.uint32).astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)
        keep = uniform.astype(wide) < wide(1 - p)
        y = x.to(torch.float64).numpy().astype(wide).reshape(-1) * keep * wide(wide(1) / wide(1 - p))
        return torch.from_numpy(y).to(x.dtype).view(x.shape), torch.from_numpy(keep).view(x.shape)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device = Device(seed=2**64 - 3, offset=4 * 2**32 - 8)
    monkeypatch.setattr(torch, "native_dropout", device.native_dropout)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(cuda_rng, "default_generator", lambda _: device)
    monkeypatch.setattr(cuda_rng, "_multiprocessors", lambda _: (1, 512))
    monkeypatch.setattr(cuda_rng, "_record", type(cuda_rng._record)())
    cuda_rng._mapping_holds.cache_clear()
    yield device
    cuda_rng._mapping_holds.cache_clear()


@pytest.fixture
def with_kernels(device: Device, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(cuda_backend, "operators", lambda: interpreter)
    return device


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_output_mask_and_generator_are_those_of_native_dropout(
    with_kernels: Device, dtype: torch.dtype, p: float
) -> None:
    start = with_kernels.offset
    numels = [4096, 4097, 33, 4, 2050]
    tensors = [torch.randn(n).to(dtype) for n in numels] + [torch.randn(65).to(dtype)[1:]]
    expected = [with_kernels.native_dropout(x, p, True) for x in tensors]
    after, with_kernels.offset = with_kernels.offset, start
    for x, (y, keep) in zip(tensors, expected, strict=True):
        actual, packed = cuda_rng.native_dropout_packed(x, p, 1)
        assert torch.equal(actual, y)
        assert torch.equal(packed, pack_bits(keep))
    assert with_kernels.offset == after
    assert torch_rng_record() == {"reproduced": len(tensors)}


def test_reserving_keeps_all_64_bits_of_the_seed(device: Device) -> None:
    device.offset = 40
    assert cuda_rng.reserve(torch.device("cuda", 0), 12).tolist() == [-3, 40]
    assert device.offset == 52
    device.seed = 2**63 - 1
    assert cuda_rng.reserve(torch.device("cuda", 0), 4).tolist() == [2**63 - 1, 52]


def packs_native_dropout(device: Device, x: Tensor, reason: str) -> bool:
    """Whether native_dropout ran, and the record says why."""
    before = device.offset
    expected, keep = torch.native_dropout(x, 0.3, True)
    device.offset = before
    y, packed = cuda_rng.native_dropout_packed(x, 0.3, 2)
    is_that_mask = torch.equal(y, expected) and torch.equal(packed, pack_bits(keep, 2))
    return is_that_mask and torch_rng_record() == {f"packed native_dropout: {reason}": 1}


def test_a_torch_that_draws_otherwise_is_found_out(with_kernels: Device) -> None:
    with_kernels.extra_calls = 1
    offset = with_kernels.offset
    assert packs_native_dropout(with_kernels, torch.ones(64), f"torch {torch.__version__} draws otherwise")
    assert with_kernels.offset == offset + 4


def test_a_layout_of_its_own_is_not_reproduced(with_kernels: Device) -> None:
    assert packs_native_dropout(with_kernels, torch.randn(8, 4).t(), "input not contiguous")


def test_graph_capture_is_not_reproduced(with_kernels: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert packs_native_dropout(with_kernels, torch.randn(8), "CUDA graph capture")


@pytest.mark.parametrize(("numel", "packed"), [(64, 16), (65, 17)])
def test_what_a_capture_packs_with_is_loaded_before(
    with_kernels: Device, monkeypatch: pytest.MonkeyPatch, numel: int, packed: int
) -> None:
    """Within a capture the mask of native_dropout is packed, and no kernel can be loaded."""
    sizes: list[int] = []
    monkeypatch.setattr(
        ops, "pack_bits", lambda mask, bits: sizes.append(mask.numel()) or pack_bits(mask, bits)
    )
    cuda_rng._load_packing.cache_clear()
    for _ in range(2):
        cuda_rng.native_dropout_packed(torch.randn(numel), 0.3, 2)
    assert sizes == [packed]


def test_without_kernels_nothing_is_reproduced(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SimpleNamespace(name="torch reference on cuda")
    monkeypatch.setattr(cuda_backend, "operators", lambda: plain)
    assert packs_native_dropout(device, torch.randn(8), "torch reference on cuda")


def test_reasons_that_need_no_device() -> None:
    class Subclass(Tensor):
        pass

    assert cuda_rng.why_not_reproduced(torch.ones(3).as_subclass(Subclass)) == "Subclass"
    with FlopCounterMode(display=False):
        assert cuda_rng.why_not_reproduced(torch.ones(3)) == "a torch dispatch mode"
    seen: list[str | None] = []
    torch.func.vmap(lambda x: seen.append(cuda_rng.why_not_reproduced(x)) or x)(torch.ones(3))
    assert seen == ["torch.func"]


def test_torch_compile_packs_and_records_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_rng, "_record", type(cuda_rng._record)())

    @torch.compile(fullgraph=True, backend="aot_eager")
    def drop(x: Tensor) -> Any:
        return cuda_rng.native_dropout_packed(x, 0.5, 1)

    x = torch.ones(100)
    for _ in range(3):
        y, packed = drop(x)
        assert torch.equal(packed, pack_bits(y != 0))
    assert torch_rng_record() == {"packed native_dropout: torch.compile": 1}


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_ops_pass_opcheck(bits: int) -> None:
    x, state = torch.randn(5, 13), torch.tensor([3, 8])
    arguments = (x, state, 0.3, bits, 256, 1)
    packed = ops.native_dropout(*arguments)[1]
    torch.library.opcheck(ops.native_dropout, arguments)
    torch.library.opcheck(ops.scale_packed_mask, (x.t(), packed, 1.3, bits))


def test_every_op_has_a_kernel_for_cuda() -> None:
    for name in cuda_backend.reference.OPERATORS | cuda_mapping.OPERATORS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pmexp::{name}", "CUDA")


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets the environment variable, and whether Triton is installed; forgets what was chosen."""

    def choose(choice: str | None, installed: bool) -> None:
        cuda_backend.operators.cache_clear()
        find = (lambda _: SimpleNamespace()) if installed else (lambda _: None)
        monkeypatch.setattr(cuda_backend.importlib.util, "find_spec", find)
        if choice is None:
            monkeypatch.delenv(cuda_backend.ENVIRONMENT_VARIABLE, raising=False)
        else:
            monkeypatch.setenv(cuda_backend.ENVIRONMENT_VARIABLE, choice)

    yield choose
    cuda_backend.operators.cache_clear()


@pytest.mark.parametrize(("choice", "installed"), [("reference", True), ("auto", False), (None, False)])
def test_the_torch_reference_is_chosen_and_named(choose: Any, choice: str | None, installed: bool) -> None:
    choose(choice, installed)
    assert backend(torch.device("cuda")) == "torch reference on cuda"
    assert not cuda_backend.has_kernels()
    assert cuda_backend.operators().packed_dropout is cuda_backend.reference.packed_dropout


@pytest.mark.parametrize("choice", ["triton", "auto", None])
def test_triton_is_chosen_and_named(choose: Any, choice: str | None) -> None:
    triton = pytest.importorskip("triton")
    choose(choice, installed=True)
    device = torch.device("cuda")
    assert backend(device) == f"triton {triton.__version__}, {native.calls(device)}"
    assert cuda_backend.has_kernels()


@pytest.mark.parametrize(
    ("choice", "installed", "choices"),
    [("cutlass", True, "auto, triton, reference"), ("triton", False, "auto, reference")],
)
def test_an_unavailable_backend_is_an_error(choose: Any, choice: str, installed: bool, choices: str) -> None:
    choose(choice, installed)
    with pytest.raises(RuntimeError, match=f"{choice} is not available here; choose one of {choices}$"):
        cuda_backend.operators()


def test_importing_the_method_imports_neither_triton_nor_dynamo() -> None:
    script = (
        "import sys, torch; before = set(sys.modules); import pmexp.packed_dropout as method;"
        "method.packed_dropout(torch.ones(9));"
        "print([name for name in ('triton', 'torch._dynamo') if name in sys.modules and name not in before])"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
