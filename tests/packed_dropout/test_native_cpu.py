"""Packed dropout on the CPU by native calls: that they run, that nothing but time tells them from Python's, and what
is left to Python."""

import copy
import ctypes
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_driver import hand_over_the_core
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode

from pmexp.packed_dropout import PackedDropout, backend, native, packed_dropout
from pmexp.packed_dropout.cpu import core as cpu_core
from pmexp.packed_dropout.native import build
from pmexp.packed_dropout.rebuild import rebuilding
from pmexp.packed_dropout.recompute import packed_dropout_and_bits

CPU = torch.device("cpu")
VARIABLE = native.ENVIRONMENT_VARIABLES["cpu"]
NODE = "PackedDropoutBackward"
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "in order": lambda x: x,
    "transposed": lambda x: x.transpose(0, -1),
    "sliced": lambda x: x[..., ::2],
    "expanded": lambda x: x[:1].expand(3, *x.shape[1:]),
    "behind an offset": lambda x: x.flatten()[x.numel() // 2 :],
}

pytestmark = pytest.mark.usefixtures("library")


@pytest.fixture(autouse=True)
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has not decided yet, and does so by the default."""
    monkeypatch.setattr(native, "_reasons", {})
    monkeypatch.setattr(native, "_calls", {})
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    hand_over_the_core()


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype, requires_grad=True)


def test_a_dropout_is_one_operator_and_the_record_says_so() -> None:
    assert backend(CPU).endswith(", native calls")
    for y in (packed_dropout(ones(8)), PackedDropout()(ones(8)), packed_dropout_and_bits(ones(8))[0]):
        assert y.grad_fn is not None and y.grad_fn.name() == NODE
    assert packed_dropout(torch.ones(8)).grad_fn is None


def strides(x: Tensor) -> list[int]:
    """Those of dimensions with several elements: to the others a stride says nothing, and torch's own operators differ."""
    return [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    p=st.floats(1e-6, 1 - 1e-6),
    bits=st.sampled_from([1, 2, 4]),
    cache=st.booleans(),
    layouts=st.tuples(*[st.sampled_from(sorted(LAYOUTS))] * 2),
    seed=st.integers(0, 2**63 - 1),
)
def test_results_gradients_and_generator_are_those_of_python(
    shape: list[int],
    dtype: torch.dtype,
    p: float,
    bits: int,
    cache: bool,
    layouts: tuple[str, str],
    seed: int,
) -> None:
    values = torch.linspace(-3, 3, torch.Size(shape).numel()).view(shape).to(dtype)
    x = LAYOUTS[layouts[0]](values).detach().requires_grad_()
    weight = LAYOUTS[layouts[1]](torch.full_like(x, 2.0))
    weight = weight if weight.shape == x.shape else weight.new_full((), 0.5).expand(x.shape)

    def results() -> list[Tensor]:
        torch.manual_seed(seed)
        y, packed = packed_dropout_and_bits(x, p, bits=bits, cache_unpacked=cache)
        grads = [torch.autograd.grad(y, x, weight, retain_graph=True)[0] for _ in range(2)]
        module = PackedDropout(p, bits=bits, cache_unpacked=cache)
        again = module(x)
        assert packed is not None
        return [y, packed, *grads, again, *torch.autograd.grad(again, x, weight), torch.get_rng_state()]

    with native.by_python():
        expected = results()
    for one, other in zip(results(), expected, strict=True):
        assert one.dtype is other.dtype and strides(one) == strides(other) and torch.equal(one, other)


def test_a_mask_changed_before_backward_is_refused() -> None:
    y, packed = packed_dropout_and_bits(ones(64), 0.5)
    assert packed is not None
    packed.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_threads_share_the_generator() -> None:
    """Each seed is drawn once, whoever draws it, and gradients of other threads are their own."""
    seen: list[tuple[int, ...]] = []

    def drop() -> None:
        for _ in range(20):
            x = ones(48)
            y = packed_dropout(x, 0.5)
            y.sum().backward()
            assert x.grad is not None and torch.equal(x.grad, y.detach())
            seen.append(tuple((y != 0).tolist()))

    torch.manual_seed(4)
    workers = [threading.Thread(target=drop) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    torch.manual_seed(4)
    with native.by_python():
        assert sorted(seen) == sorted(tuple((packed_dropout(ones(48)) != 0).tolist()) for _ in range(60))


def test_a_copied_module_and_its_mask_streams() -> None:
    module = copy.deepcopy(PackedDropout(0.5))
    torch.manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        first = module(ones(64))
    assert torch.equal(module(ones(64)), first)


class _Labelled(Tensor):
    """A subclass that functions are not told of, as nn.Parameter is."""

    __torch_function__ = torch._C._disabled_torch_function_impl


class _Watching(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _under(context: Any, **options: Any) -> Callable[[], object]:
    def drop() -> Tensor:
        with context():
            return packed_dropout(ones(8), **options)

    return drop


LEFT_TO_PYTHON = {
    "another rng": lambda: packed_dropout(ones(8), rng="torch"),
    "flipped bits": lambda: packed_dropout(ones(8), flip_rate=0.1),
    "in place": lambda: packed_dropout(torch.ones(8), inplace=True),
    "a rate that is a tensor": lambda: packed_dropout(ones(8), torch.tensor(0.5)),  # type: ignore[arg-type]
    "nothing to drop": lambda: packed_dropout(ones(8), 0.0),
    "all to drop": lambda: packed_dropout(ones(8), 1.0),
    "evaluation": lambda: packed_dropout(ones(8), training=False),
    "a subclass": lambda: packed_dropout(torch.ones(8).as_subclass(_Labelled)),
    "a dispatch mode": _under(_Watching),
    "operands made again": _under(rebuilding),
    "forward mode": _under(forward_ad.dual_level),
    "torch.func": lambda: torch.func.grad(lambda x: packed_dropout(x).sum())(torch.ones(8)),
    "vmap": lambda: torch.func.vmap(packed_dropout, randomness="different")(torch.ones(2, 8)),
    "another device": lambda: packed_dropout(torch.ones(8, device="meta")),
}


@pytest.mark.parametrize("drop", LEFT_TO_PYTHON.values(), ids=LEFT_TO_PYTHON)
def test_what_is_not_plain_is_left_to_python(
    drop: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a native call")

    monkeypatch.setattr(
        native, "_calls", {-1: native.Calls(refuse, refuse, native.loaded_calls().apply_mask)}
    )
    drop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_module_draws_at_each_run() -> None:
    traced = torch.jit.trace(PackedDropout(0.5), (torch.ones(64),), check_trace=False)
    assert not torch.equal(traced(torch.ones(64)), traced(torch.ones(64)))


def test_the_first_use_compares_and_what_differs_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = native.loaded_calls()

    def wrong(x: Tensor, *options: Any) -> Tensor:
        y: Tensor = right.packed_dropout(x, *options)
        return y * 1.0000001

    monkeypatch.setattr(native, "loaded_calls", lambda: right._replace(packed_dropout=wrong))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert backend(CPU).endswith(", calls by Python: native ones differ or fail on this device")
    assert torch.equal(torch.get_rng_state(), before)
    y = packed_dropout(ones(8))
    assert y.grad_fn is not None and y.grad_fn.name() != NODE


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "python")
    assert backend(CPU).endswith(", calls by Python: PMEXP_CPU_CALLS=python")
    native.choose("cpu", "auto")
    assert backend(CPU).endswith(", native calls")


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(build.FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(native, "is_loaded", lambda: False)
    return tmp_path / "cache"


def test_a_dropout_waits_for_no_compiler(nothing_built: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It says once how to have the library, and whoever asks later hears what ran."""
    for _ in range(2):
        y = packed_dropout(ones(8))
        assert y.grad_fn is not None and y.grad_fn.name() != NODE
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "python -m pmexp.packed_dropout" in record.getMessage()
    assert backend(CPU).endswith(", calls by Python: no library was there at the first dropout")
    assert not nothing_built.exists()


def test_without_a_compiler_nothing_is_said_but_in_the_record(
    nothing_built: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    packed_dropout(ones(8))
    assert not caplog.records
    assert backend(CPU).endswith(", calls by Python: no C++ compiler")
    monkeypatch.setattr(native, "_reasons", {})
    monkeypatch.setenv(VARIABLE, "native")
    with pytest.raises(RuntimeError, match="PMEXP_CPU_CALLS=native cannot be had: no C"):
        backend(CPU)


def test_an_older_torch_is_said_and_not_tried(
    nothing_built: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its headers lack what the library takes, so that each run would wait for a build that fails."""
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0+cpu"))
    packed_dropout(ones(8))
    assert not caplog.records
    assert backend(CPU).endswith(", calls by Python: torch 2.11 or newer is needed")


def test_a_folder_that_cannot_be_written_fails_no_run(
    nothing_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_built.touch()  # root may write into any folder, and into no file
    assert ", calls by Python: not built: " in backend(CPU)
    packed_dropout(ones(8)).sum().backward()


def test_the_reference_has_no_native_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    from pmexp.packed_dropout import ops

    monkeypatch.setattr(ops, "_cpu_core", None)
    assert native.calls(CPU) == "calls by Python: the torch reference runs"
    y = packed_dropout(ones(8))
    assert y.grad_fn is not None and y.grad_fn.name() != NODE


def test_two_that_build_at_once_build_once(
    nothing_built: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        f"#!/bin/sh\necho built >> {tmp_path / 'builds'}\nsleep 0.2\n"
        'while [ "$1" != -o ]; do shift; done\necho library > "$2"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    paths: list[Path] = []
    builders = [threading.Thread(target=lambda: paths.append(build.library())) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert (tmp_path / "builds").read_text() == "built\n" and len(set(paths)) == 1
    assert paths[0].read_text() == "library\n"


def test_a_small_mask_waits_for_no_second_thread() -> None:
    """Up to 65,535 elements one thread makes it: another process may keep the second one's core busy."""
    handed_on: list[int] = []

    @ctypes.CFUNCTYPE(
        None, ctypes.CFUNCTYPE(None, ctypes.c_void_p), ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
    )
    def parallel(work: Any, data: int, threads: int, _: int) -> None:
        handed_on.append(threads)
        work(data)

    library: Any = cpu_core._library()
    core, threads = cpu_core.Core(cpu_core.available_backends()[0]), torch.get_num_threads()
    torch.set_num_threads(2)
    library.pmexp_use_openmp(ctypes.cast(parallel, ctypes.c_void_p))
    try:
        for numel, expected in ((4097, 0), (65_535, 0), (65_536, 2)):
            handed_on.clear()
            x = torch.ones(numel)
            y, packed = core.packed_dropout(x, torch.tensor([7]), 0.5, 1)
            assert torch.equal(core.apply_packed_mask(x, packed, 0.5, 1), y)
            assert len(handed_on) == expected
    finally:
        library.pmexp_use_openmp(cpu_core.torchs_openmp())
        torch.set_num_threads(threads)


def test_a_model_trains_alike() -> None:
    def losses() -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 16), nn.GELU(), PackedDropout(0.2), nn.Linear(16, 3))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        collected = []
        for _ in range(4):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(torch.ones(5, 12)).float().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            collected.append(loss.detach())
        return collected

    with native.by_python():
        expected = losses()
    assert all(map(torch.equal, losses(), expected))
