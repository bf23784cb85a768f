"""On a CUDA device: native calls against those by Python, bit for bit, and that they are what runs."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from pmexp.bench.gpu.stages.native_calls import launches_by_python
from pmexp.packed_dropout import (
    PackedDropout,
    backend,
    cuda_rng,
    native,
    packed_dropout,
    softmax_dropout_matmul,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
NUMELS = [1, 2, 7, 16, 31, 4096, 4097, 65537, 2**20 + 16, 2**20 + 1]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(autouse=True)
def native_calls(
    record_property: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    before = os.environ.get(native.ENVIRONMENT_VARIABLES["cuda"], "auto")
    monkeypatch.setenv(native.ENVIRONMENT_VARIABLES["cuda"], before)  # is set back as it was
    native.choose("cuda", "native")
    name = backend(torch.device("cuda"))
    record_property("backend", name)
    assert name.endswith(", native calls")
    yield
    native.choose("cuda", before)


@pytest.fixture
def launched_by_python() -> Iterator[list[str]]:
    """Names of the kernels that Python launches."""
    with launches_by_python() as names:
        yield names


def randn(numel: int, dtype: torch.dtype = torch.float32, offset: int = 0) -> Tensor:
    values = torch.randn(numel + offset, generator=torch.Generator().manual_seed(numel)).to("cuda", dtype)
    return values[offset:].requires_grad_()


def of_both(run: Callable[[], list[Tensor]], seed: int = 11) -> list[Tensor]:
    """Returns what `run` gives by native calls: twice the same as by Python, with the same state of the generator."""
    results = []
    for calls in (native.by_python, nullcontext, nullcontext):
        torch.manual_seed(seed)
        with calls():
            results.append([*run(), torch.cuda.get_rng_state()])
    for outputs in results[1:]:
        for expected, one in zip(results[0], outputs, strict=True):
            assert one.dtype is expected.dtype and one.shape == expected.shape
            assert one.stride() == expected.stride() and torch.equal(one, expected)
    return results[1][:-1]


@pytest.fixture(autouse=True)
def decided() -> None:
    """Has a first call decide whether the device is served natively, before any test."""
    packed_dropout(torch.ones(64, device="cuda"))
    assert native._calls[torch.cuda.current_device()] is not None


@pytest.mark.parametrize("bits", [1, 2, 4])
@each_dtype
def test_results_and_gradients(dtype: torch.dtype, bits: int) -> None:
    for numel, offset, p in itertools.product(NUMELS, (0, 1), (0.1, 1 / 3)):
        x, weight = randn(numel, dtype, offset), randn(numel + 1, dtype).detach()[1:]

        def run(x: Tensor = x, weight: Tensor = weight, p: float = p) -> list[Tensor]:
            y = packed_dropout(x, p, bits=bits)
            return [y, torch.autograd.grad(y, x, weight)[0], packed_dropout(y.detach(), p, bits=bits)]

        of_both(run)


def test_after_the_first_call_of_a_kind_python_launches_nothing(launched_by_python: list[str]) -> None:
    for dtype, numel, offset, bits in itertools.product(DTYPES, (1024, 1001), (0, 1), (1, 2, 4)):
        x, weight = randn(numel, dtype, offset), randn(numel, dtype).detach()
        for turn in range(3):
            y = packed_dropout(x, 0.3, bits=bits)
            assert type(y.grad_fn).__name__ == "CppFunction"
            torch.autograd.grad(y, x, weight)
            if turn == 0:
                launched_by_python.clear()
        assert launched_by_python == []


def test_gradients_of_gradients_and_kept_graphs() -> None:
    x, weight = randn(500), randn(500)

    def run() -> list[Tensor]:
        y = packed_dropout(x, 0.3)
        (gradient,) = torch.autograd.grad((y * weight).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((gradient**2).sum(), weight)
        z = packed_dropout(x, 0.3)
        return [
            gradient,
            second,
            *(torch.autograd.grad(z, x, weight, retain_graph=True)[0] for _ in range(3)),
        ]

    of_both(run)


def test_seeds_over_states_of_the_generator() -> None:
    x = randn(4099).detach()
    generator = torch.cuda.default_generators[torch.cuda.current_device()]

    def run() -> list[Tensor]:
        outputs = []
        for seed, offset in ((0, 0), (2**40 + 5, 12), (2**64 - 1, 2**36 + 4), (-7, 2**34 * 4)):
            torch.cuda.manual_seed(seed)
            generator.set_offset(offset)
            outputs += [packed_dropout(x, 0.3) for _ in range(3)]
            state = torch.cuda.get_rng_state()
            outputs.append(packed_dropout(x, 0.3))
            torch.cuda.set_rng_state(state)
            outputs.append(packed_dropout(x, 0.3))
            assert torch.equal(outputs[-1], outputs[-2])
        return outputs

    of_both(run)


def test_recomputed_attention() -> None:
    scores, value = (
        randn(2 * 16 * 16).detach().view(2, 16, 16).requires_grad_(),
        randn(512).detach().view(2, 16, 16),
    )

    def run() -> list[Tensor]:
        y = softmax_dropout_matmul(scores, value.requires_grad_(), 0.3)
        return [y, *torch.autograd.grad((y * y).sum(), (scores, value))]

    of_both(run)


def test_streams() -> None:
    """Forward and backward run on the stream that is current in forward, behind what fills x there."""
    values = randn(2**20).detach()

    def run() -> list[Tensor]:
        x, weight, stream = torch.zeros_like(values), torch.zeros_like(values), torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(20_000_000)  # some 10 ms: what runs on another stream finds zeros
            y = packed_dropout(x.copy_(values).requires_grad_(), 0.3)
            torch.cuda._sleep(20_000_000)
            (gradient,) = torch.autograd.grad(y, x, weight.copy_(values))
        stream.synchronize()
        return [y.detach(), gradient]

    for _ in range(3):
        assert all(outputs.any() for outputs in of_both(run))


def test_hooks_and_checkpoints() -> None:
    x = randn(1000)

    def run() -> list[Tensor]:
        outputs = []
        with save_on_cpu(pin_memory=True):
            y = packed_dropout(x, 0.3)
        outputs += [y, *torch.autograd.grad(y.sum(), x)]
        for reentrant in (True, False):
            x.grad = None
            y = checkpoint(lambda t: packed_dropout(packed_dropout(t) * 2.0, 0.3), x, use_reentrant=reentrant)
            y.sum().backward()
            assert x.grad is not None
            outputs += [y, x.grad]
        return outputs

    of_both(run)
    seen: list[Tensor] = []
    with saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        packed_dropout(x)
    assert [(t.dtype, t.numel()) for t in seen] == [(torch.uint8, 125)]


def test_threads_that_never_touched_the_device(launched_by_python: list[str]) -> None:
    """Each is in no context at first, which Python mends. All draw from one generator, from no state twice."""
    x = torch.ones(4096, device="cuda", requires_grad=True)
    packed_dropout(x, 0.5).sum().backward()
    torch.cuda.synchronize()
    launched_by_python.clear()
    results: dict[int, list[Tensor]] = {}
    torch.manual_seed(5)
    before = cuda_rng.default_generator(x.device).get_offset()

    def draws(thread: int) -> None:
        for _ in range(200):
            y = packed_dropout(x, 0.5)
            (gradient,) = torch.autograd.grad(y.sum(), x)
            results.setdefault(thread, []).extend((y.detach(), gradient))
        torch.cuda.synchronize()

    threads = [threading.Thread(target=draws, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    masks = torch.stack([y for outputs in results.values() for y in outputs[::2]])
    gradients = torch.stack([gradient for outputs in results.values() for gradient in outputs[1::2]])
    assert torch.equal(masks, gradients)
    assert len({tuple(row) for row in masks[:, :64].tolist()}) == 400
    assert cuda_rng.default_generator(x.device).get_offset() - before == 400 * 4
    assert len(launched_by_python) <= 4


def test_every_device() -> None:
    for index in range(torch.cuda.device_count()):
        x = torch.ones(4096, device=f"cuda:{index}", requires_grad=True)
        for _ in range(3):
            y = packed_dropout(x, 0.5)
            (gradient,) = torch.autograd.grad(y.sum(), x)
            assert torch.equal(gradient, y.detach())
        assert 0.4 < (y == 0).double().mean() < 0.6


def test_what_is_not_plain_goes_by_python() -> None:
    x = randn(4096)

    def run() -> list[Tensor]:
        square = x.detach().view(64, 64).t().requires_grad_()
        y = packed_dropout(square, 0.3)
        graph = torch.cuda.CUDAGraph()
        static = torch.ones(4096, device="cuda")
        packed_dropout(static)
        with torch.cuda.graph(graph):
            z = packed_dropout(static)
        masks = []
        for _ in range(2):
            graph.replay()
            masks.append(z.clone())
        assert not torch.equal(*masks)
        return [y, *torch.autograd.grad(y.sum(), square), *masks]

    of_both(run)


@pytest.fixture
def autograd_is_warm() -> Iterator[None]:
    x = randn(64)
    for _ in range(100):
        torch.autograd.grad(PackedDropout(0.3)(x), x, torch.ones_like(x))
    yield
    torch.cuda.synchronize()
