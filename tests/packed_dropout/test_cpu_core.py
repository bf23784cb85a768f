"""The C++ core against the plain-torch reference, bit for bit, on every instruction set of this machine."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pmexp.packed_dropout import cpu, functional, ops, packed_dropout, reference

BACKENDS = cpu.available_backends()
CHOICES = [*BACKENDS, "reference"]
pytestmark = pytest.mark.skipif(not BACKENDS, reason="installed without a C++ compiler: no core to test")

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
WIDTHS = [1, 2, 4]
PROBABILITIES = [0.0, 1e-12, 1e-9, 0.1, 1 / 3, 0.5, 1 - 1e-9, 1 - 1e-12, 1.0]  # both ends of the threshold
SEEDS = [0, 1, 2**32 - 1, 2**32, 2**62 - 1, 2**63 - 1, -1, -(2**63)]
SIZES = [0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 1001]
LARGE = 200_003  # several chunks for the threads, and a tail
GUARD = 64

each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_width = pytest.mark.parametrize("bits", WIDTHS)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Compares dtype, shape, strides and bits, the sign of zero included; any NaN equals any other."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.numel() > 1:
        assert actual.stride() == expected.stride()
    if not actual.is_floating_point():
        assert torch.equal(actual, expected)
        return
    assert torch.equal(actual.isnan(), expected.isnan())
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[actual.element_size()]
    unequal = actual.contiguous().view(integer) != expected.contiguous().view(integer)
    assert not (unequal & ~actual.isnan()).any()


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


def values(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(dtype)


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
@each_width
def test_bits_do_not_depend_on_the_number_of_threads(backend: str, bits: int) -> None:
    core, seed, x = cpu.Core(backend), torch.tensor([13]), values((LARGE,), torch.float32)
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        y, packed = core.packed_dropout(x, seed, 0.2, bits)
        again = core.apply_packed_mask(x, packed, 0.2, bits)
        results.append((y, packed, again, core.unpack_bits(packed, x.shape, bits)))
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            assert_same(actual, expected)


@each_backend
def test_python_threads_call_at_once(backend: str) -> None:
    core, x = cpu.Core(backend), values((LARGE,), torch.float32)
    expected = [core.packed_dropout(x, torch.tensor([seed]), 0.2, 1) for seed in range(4)]
    wrong: list[int] = []

    def call(seed: int) -> None:
        torch.set_num_threads(3)
        for _ in range(25):
            y, packed = core.packed_dropout(x, torch.tensor([seed]), 0.2, 1)
            if not (torch.equal(y, expected[seed][0]) and torch.equal(packed, expected[seed][1])):
                wrong.append(seed)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert wrong == []


def test_bits_do_not_depend_on_whose_threads_work() -> None:
    """They are those of torch's OpenMP team, where the core found one, or the core's own."""
    library, team = cpu.core._library(), cpu.core.torchs_openmp()
    assert library is not None
    assert (team is not None) == (sys.platform == "linux")
    core, x = cpu.Core(BACKENDS[0]), values((LARGE,), torch.float32)
    before = core.packed_dropout(x, torch.tensor([3]), 0.3, 1)
    library.pmexp_use_openmp(None)
    try:
        after = core.packed_dropout(x, torch.tensor([3]), 0.3, 1)
    finally:
        library.pmexp_use_openmp(team)
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])


def exit_code_of_fork(work: Callable[[], bool]) -> int:
    """Runs work() in a forked child. 0: it returned True; a child that hangs is killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork() beside threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the forked child hangs")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts the threads of a process in /proc")
def test_a_forked_child_makes_its_own_threads() -> None:
    core, seed, x = cpu.Core(BACKENDS[0]), torch.tensor([21]), values((LARGE,), torch.float32)
    y, packed = core.packed_dropout(x, seed, 0.2, 1)
    child_y, child_packed = torch.zeros_like(y), torch.zeros_like(packed)

    def work() -> bool:
        before = len(os.listdir("/proc/self/task"))
        core.dropout_into(child_y, child_packed, x, seed, 0.2, 1)
        after = len(os.listdir("/proc/self/task"))
        # numpy, since torch's own OpenMP threads do not survive a fork.
        same = bool((child_y.numpy() == y.numpy()).all() and (child_packed.numpy() == packed.numpy()).all())
        return same and (before, after) == (1, 2)

    assert exit_code_of_fork(work) == 0


def test_a_fork_in_the_middle_of_another_threads_call() -> None:
    core, seed, x = cpu.Core(BACKENDS[0]), torch.tensor([22]), values((LARGE,), torch.float32)
    y, packed = core.packed_dropout(x, seed, 0.2, 1)
    stop = threading.Event()

    def keep_calling() -> None:
        while not stop.is_set():
            core.dropout_into(y, packed, x, seed, 0.2, 1)

    expected = packed.numpy().copy()
    child_y, child_packed = torch.zeros_like(y), torch.zeros_like(packed)

    def work() -> bool:
        core.dropout_into(child_y, child_packed, x, seed, 0.2, 1)
        return bool((child_packed.numpy() == expected).all())

    caller = threading.Thread(target=keep_calling)
    caller.start()
    try:
        codes = [exit_code_of_fork(work) for _ in range(20)]
    finally:
        stop.set()
        caller.join()
    assert codes == [0] * 20


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


def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cpu.ENVIRONMENT_VARIABLE, raising=False)
    best = cpu.select()
    assert best is not None
    assert best.name == f"cpu core {BACKENDS[0]}"
    for backend in BACKENDS:
        monkeypatch.setenv(cpu.ENVIRONMENT_VARIABLE, backend)
        chosen = cpu.select()
        assert chosen is not None
        assert chosen.name == f"cpu core {backend}"
    monkeypatch.setenv(cpu.ENVIRONMENT_VARIABLE, "reference")
    assert cpu.select() is None


def test_an_unavailable_backend_is_an_error_that_names_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ("sse9", "neon" if "avx2" in BACKENDS else "avx2"):
        monkeypatch.setenv(cpu.ENVIRONMENT_VARIABLE, backend)
        choices = ", ".join(("auto", *BACKENDS, "reference"))
        with pytest.raises(RuntimeError, match=f"{backend} is not available here; choose one of {choices}$"):
            cpu.select()


def test_without_the_library_auto_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.core, "_library", lambda: None)
    monkeypatch.delenv(cpu.ENVIRONMENT_VARIABLE, raising=False)
    assert cpu.select() is None
    monkeypatch.setenv(cpu.ENVIRONMENT_VARIABLE, "scalar")
    with pytest.raises(RuntimeError, match=r"choose one of auto, reference$"):
        cpu.select()


@pytest.fixture(scope="module")
def said_by_choice() -> dict[str, list[str]]:
    """What each process says that imports the ops under a choice; they are forks of one that has imported torch."""
    script = (
        "import os, sys, torch\n"
        "for choice in sys.argv[1:]:\n"
        "    if os.fork() == 0:\n"
        f"        os.environ[{cpu.ENVIRONMENT_VARIABLE!r}] = choice\n"
        "        from pmexp.packed_dropout import backend, packed_dropout; torch.manual_seed(0)\n"
        "        y = packed_dropout(torch.ones(64))\n"
        "        print(choice, backend(torch.device('cpu')), y.view(torch.int32).sum().item(), sep=' / ', flush=True)\n"
        "        os._exit(0)\n"
        "    assert os.wait()[1] == 0\n"
    )
    command = [sys.executable, "-c", script, *CHOICES]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {choice: said for choice, *said in (line.split(" / ") for line in lines)}


@pytest.mark.parametrize("choice", CHOICES)
def test_the_ops_run_what_backend_names(choice: str, said_by_choice: dict[str, list[str]]) -> None:
    name, checksum = said_by_choice[choice]
    runs = name.split(", ")[0]  # without who calls it
    assert runs == ("torch reference on cpu" if choice == "reference" else f"cpu core {choice}")
    torch.manual_seed(0)
    assert int(checksum) == packed_dropout(torch.ones(64)).view(torch.int32).sum().item()


def test_the_core_serves_the_registered_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    if ops._cpu_core is None:
        pytest.skip(f"{cpu.ENVIRONMENT_VARIABLE} chose the reference")
    monkeypatch.delattr(reference, "draw_mask")  # the reference could not have drawn it
    y, _ = ops.packed_dropout(torch.ones(100), torch.tensor([9]), 0.5, 1)
    assert set(y.tolist()) == {0.0, 2.0}


@each_width
def test_opcheck(bits: int) -> None:
    x, seed = values((3, 37), torch.float32), torch.tensor([5])
    _, packed = ops.packed_dropout(x, seed, 0.3, bits)
    torch.library.opcheck(torch.ops.pmexp.packed_dropout.default, (x, seed, 0.3, bits))
    torch.library.opcheck(torch.ops.pmexp.packed_dropout.default, (x.t(), seed, 0.3, bits))
    torch.library.opcheck(torch.ops.pmexp.apply_packed_mask.default, (x, packed, 0.3, bits))
    torch.library.opcheck(torch.ops.pmexp.pack_bits.default, (x > 0, bits))
    torch.library.opcheck(torch.ops.pmexp.unpack_bits.default, (packed, [3, 37], bits))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("retain_graph", [False, True])
def test_gradients_are_the_masked_gradients(create_graph: bool, retain_graph: bool) -> None:
    x = values((9, 41), torch.float64).requires_grad_()
    torch.manual_seed(3)
    y = packed_dropout(x, 0.3)
    kept_scale = y.detach() / x.detach()
    keep_graph = retain_graph or create_graph
    for _ in range(2 if keep_graph else 1):
        (grad,) = torch.autograd.grad(
            y, x, torch.full_like(y, 2.0), retain_graph=keep_graph, create_graph=create_graph
        )
        torch.testing.assert_close(grad, 2.0 * kept_scale)
        assert grad.requires_grad is False  # linear in the gradient, which needs none here


def test_double_backward() -> None:
    x = values((30,), torch.float64).requires_grad_()
    seed = torch.tensor([8])

    def drop(x: Tensor) -> Tensor:
        options = functional.Options(0.4, 1, True, "philox", 0.0)
        return functional.dropout_and_bits(x, seed, options)[0]

    assert torch.autograd.gradcheck(drop, (x,))
    assert torch.autograd.gradgradcheck(drop, (x,))
