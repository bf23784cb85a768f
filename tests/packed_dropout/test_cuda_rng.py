"""Masks of rng="torch" on CUDA are those of torch's native_dropout, and a torch that draws otherwise is found out. No
GPU here: a generator, two device properties and native_dropout itself are stood in for."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from core_cases import DTYPES
from cuda_state import CudaState
from philox_words import thread_by_thread
from pmexp.packed_dropout import (
    cuda_backend,
    cuda_rng,
    ops,
    pack_bits,
    torch_rng_record,
)
from triton_interpreter import Interpreter


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
