"""The native calls against those by Python, bit for bit, on the CPU: by the core's kernels, by the operators, as on
CUDA before a kernel is known, and by kernels that a driver of our own launches (native_driver.py)."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from native_driver import SIZES, Driver, hand_over_the_core, register_both
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from pmexp.packed_dropout import cuda_seeds, ops, packed_dropout, reference
from pmexp.packed_dropout.native import by_python, kernels
from pmexp.packed_dropout.recompute import packed_dropout_and_bits

pytestmark = pytest.mark.usefixtures("library")
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SHAPES = [(1,), (7,), (64,), (33, 65), (4096,), (2, 3, 1000)]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def native(x: Tensor, p: float = 0.5, bits: int = 1, cache_unpacked: bool = True) -> Tensor:
    y: Tensor | None = torch.ops.pmexp.plain_dropout(x, p, bits, cache_unpacked)
    assert y is not None
    return y


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype).requires_grad_()


def python(x: Tensor, p: float = 0.5, bits: int = 1, cache_unpacked: bool = True) -> Tensor:
    return packed_dropout(x, p, bits=bits, cache_unpacked=cache_unpacked)


def of_both(run: Callable[[Callable[..., Tensor]], Any]) -> None:
    """Asserts that `run`, given either dropout, returns the same tensors and leaves the same generator state."""
    results = []
    for drop, calls in ((python, by_python), (native, nullcontext)):
        torch.manual_seed(11)
        with calls():
            results.append([*run(drop), torch.get_rng_state()])
    for expected, actual in zip(*results, strict=True):
        assert actual.dtype is expected.dtype and torch.equal(expected, actual)


@pytest.fixture(params=["core", "operators"])
def kernels_of(request: pytest.FixtureRequest, library: Driver) -> Iterator[None]:
    """What native calls run on the CPU: the core, or the operators of ops.py."""
    if request.param == "operators":
        torch.ops.pmexp.use_core(0, 0, 0)
    yield
    hand_over_the_core()


@pytest.mark.usefixtures("kernels_of")
@pytest.mark.parametrize("bits", [1, 2, 4])
@each_dtype
def test_results_and_gradients(dtype: torch.dtype, bits: int) -> None:
    for shape, p in itertools.product(SHAPES, (0.1, 1 / 3, 0.5, 1e-9, 0.9999)):
        x = randn(*shape, dtype=dtype)
        weight = randn(*shape, dtype=dtype).detach().flip(0)

        def run(drop: Any, x: Tensor = x, weight: Tensor = weight, p: float = p) -> list[Tensor]:
            y = drop(x, p, bits)
            return [y, torch.autograd.grad(y, x, weight)[0], drop(y, p, bits)]

        of_both(run)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_where_no_gradient_is_needed(context: Any) -> None:
    def run(drop: Any) -> list[Tensor]:
        with context():
            return [drop(randn(100)), drop(torch.ones(40))]

    of_both(run)


def test_gradients_of_gradients() -> None:
    x, weight, other = randn(50), randn(50), randn(50).detach().flip(0)

    def run(drop: Any) -> list[Tensor]:
        y = drop(x, 0.3)
        (gradient,) = torch.autograd.grad((y * weight).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient, weight, other, create_graph=True)
        return [gradient, second, *torch.autograd.grad(second.sum() + (gradient**2).sum(), weight)]

    for cache in (True, False):
        of_both(lambda drop, cache=cache: run(lambda x, p: drop(x, p, 1, cache)))


@pytest.mark.parametrize("bits", [1, 4])
@pytest.mark.parametrize("cache", [True, False])
def test_a_graph_that_is_kept(cache: bool, bits: int) -> None:
    x = randn(77)
    weights = [torch.randn(77) for _ in range(3)]

    def run(drop: Any) -> list[Tensor]:
        y = drop(x, 0.3, bits, cache)
        return [torch.autograd.grad(y, x, weight, retain_graph=True)[0] for weight in weights]

    of_both(run)


def test_a_graph_used_twice_is_refused() -> None:
    x = randn(77)
    y = native(x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_saved_tensor_hooks_see_the_mask_and_nothing_else() -> None:
    seen: list[Tensor] = []

    def pack(tensor: Tensor) -> int:
        seen.append(tensor)
        return len(seen) - 1

    x = randn(77)
    with saved_tensors_hooks(pack, lambda place: seen[place]):
        y = native(x, 0.3)
    assert [(t.dtype, t.numel()) for t in seen] == [(torch.uint8, 10)]
    keep = reference.unpack_bits(seen[0], x.shape)
    assert torch.equal(y, reference.apply_mask(x, keep, 0.3))
    seen[0] = torch.full_like(seen[0], 0xFF)  # what hooks bring back is what backward uses
    y.sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 1 / (1 - 0.3)))


def test_an_error_of_a_hook_arrives_as_it_is() -> None:
    class Refused(Exception):
        pass

    def refuse(tensor: Tensor) -> None:
        raise Refused

    with saved_tensors_hooks(refuse, lambda saved: saved), pytest.raises(Refused):
        native(randn(8))


def test_masks_kept_on_the_cpu() -> None:
    def run(drop: Any) -> list[Tensor]:
        x = randn(100)
        with save_on_cpu():
            y = drop(x)
        return list(torch.autograd.grad(y.sum(), x))

    of_both(run)


@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant: bool, early_stop: bool) -> None:
    def run(drop: Any) -> list[Tensor]:
        x = randn(100)
        with torch.utils.checkpoint.set_checkpoint_early_stop(early_stop):
            y = checkpoint(lambda t: drop(drop(t) * 2.0, 0.3), x, use_reentrant=reentrant)
            return [y, *torch.autograd.grad(y.sum(), x)] if not reentrant else [y, backward_of(y, x)]

    of_both(run)


def backward_of(y: Tensor, x: Tensor) -> Tensor:
    y.sum().backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own
def test_batched_gradients_and_tangents_of_gradients() -> None:
    x, many, weight = randn(40), torch.randn(3, 40), torch.randn(40)

    def run(drop: Any) -> list[Tensor]:
        y = drop(x, 0.3, 1, False)
        (batched,) = torch.autograd.grad(y, x, many, retain_graph=True, is_grads_batched=True)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(weight, many[0])
            (gradient,) = torch.autograd.grad(y, x, dual)
            return [batched, *forward_ad.unpack_dual(gradient)]

    of_both(run)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_compiled_autograd() -> None:
    x = randn(64)
    with torch._dynamo.compiled_autograd._enable(lambda graph: graph):
        y = native(x, 0.3)
        y.sum().backward()
    assert torch.equal(x.grad, (y != 0) * torch.tensor(1 / (1 - 0.3)))


NOT_PLAIN = {
    "integers": lambda: torch.ones(8, dtype=torch.int64),
    "complex": lambda: torch.ones(8, dtype=torch.complex64),
    "float8": lambda: torch.ones(8).to(torch.float8_e5m2),
    "sparse": lambda: torch.ones(8).to_sparse(),
    "nested": lambda: torch.nested.as_nested_tensor([torch.ones(3), torch.ones(4)], layout=torch.strided),
    "negated": lambda: torch.ones(8, dtype=torch.complex64).conj().imag,
    "empty": lambda: torch.ones(0),
    "dual": lambda: forward_ad.make_dual(torch.ones(8), torch.ones(8)),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("make", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_is_not_plain_is_left_to_python_and_draws_nothing(make: Callable[[], Tensor]) -> None:
    before = torch.get_rng_state()
    with forward_ad.dual_level():
        assert torch.ops.pmexp.plain_dropout(make(), 0.5, 1, True) is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("p", "bits"), [(0.0, 1), (1.0, 1), (-1.0, 1), (float("nan"), 1), (0.5, 3), (0.5, 0)]
)
def test_options_that_draw_no_mask_are_left_to_python(p: float, bits: int) -> None:
    assert torch.ops.pmexp.plain_dropout(torch.ones(8), p, bits, True) is None


@pytest.mark.parametrize("bits", [1, 2, 4])
@each_dtype
def test_launches_of_registered_kernels(driver: Driver, dtype: torch.dtype, bits: int) -> None:
    numbers = itertools.count(100)
    for numel, offset in itertools.product((48, 50), (0, 1)):
        register_both(driver, numbers, randn(numel + offset, dtype=dtype).detach()[offset:], bits)
    for numel, offset, p in itertools.product((2, 7, 16, 4096, 4097, 12288), (0, 1), (0.1, 1 / 3, 0.75)):
        x = randn(numel + offset, dtype=dtype).detach()[offset:].requires_grad_()
        weight = randn(numel, dtype=dtype).detach().flip(0)

        def run(drop: Any, x: Tensor = x, weight: Tensor = weight, p: float = p) -> list[Tensor]:
            y = drop(x, p, bits)
            return [y, *torch.autograd.grad(y, x, weight)]

        of_both(run)
        forward, backward = driver.launches[-2:]
        for launch in (forward, backward):
            assert launch.grid == ((numel + 4095) // 4096, 1, 1) and launch.block == (128, 1, 1)
            assert launch.shared == 1024 and launch.stream is None
            assert launch.parameters["numel"] == numel
        assert forward.parameters["x"] == x.data_ptr() and backward.parameters["x"] == weight.data_ptr()
        assert forward.parameters["threshold"] == round((1 - p) * 2**32)
        assert forward.parameters["packed"] == backward.parameters["packed"]
        assert forward.function % 2 == 0 and backward.function % 2 == 1
    assert len(driver.launches) == 2 * 36


def test_a_kernel_serves_only_what_triton_would_compile_alike(driver: Driver) -> None:
    """It goes by the rule of triton_launch.py, which has a test against Triton's own."""
    triton_launch = pytest.importorskip("pmexp.packed_dropout.triton_launch")
    from pmexp.packed_dropout import triton_kernels

    def kind(x: Tensor, bits: int, draws: bool) -> Any:
        y, packed = torch.empty(x.shape, dtype=x.dtype), torch.zeros(2 * x.numel(), dtype=torch.uint8)
        scalars = (x.numel(), 5, 7)
        if draws:
            kernel, arguments = (
                triton_kernels._dropout_kernel,
                (x, None, None, y, packed, None, 3, 8, *scalars, True),
            )
            arguments = (*arguments, bits, 128)
        else:
            kernel, arguments = triton_kernels._scale_kernel, (x, packed, y, x.numel(), 5, bits, 512)
        return triton_launch.kind_and_values(-1, kernel, arguments)[0]

    numbers, kinds = itertools.count(500), {}
    cases = [
        (torch.ones(numel + offset, dtype=dtype)[offset:], bits, draws)
        for dtype, numel, offset, bits, draws in itertools.product(
            DTYPES, (1, 2, 15, 16, 17, 48, 4096), (0, 1), (1, 2, 4), (True, False)
        )
    ]
    for x, bits, draws in cases:
        if (argument_kind := kind(x, bits, draws)) is not None and argument_kind not in kinds:
            kinds[argument_kind] = next(numbers)
            packed = torch.zeros(2 * x.numel(), dtype=torch.uint8)
            driver.add(kinds[argument_kind], x, packed, torch.empty(x.shape, dtype=x.dtype), draws, bits)
    assert len(kinds) == 4 * 2 * 2 * 3 * 2
    for x, bits, draws in cases:
        driver.launches.clear()
        if draws:
            native(x, 0.5, bits)
        else:
            y = native(leaf := torch.ones(x.shape, dtype=x.dtype, requires_grad=True), 0.5, bits)
            driver.launches.clear()
            torch.autograd.grad(y, leaf, x)
        wanted = kinds.get(kind(x, bits, draws))
        assert [launch.function for launch in driver.launches] == [wanted] * (wanted is not None)


def test_the_first_kernel_of_a_kind_stays(driver: Driver) -> None:
    x, packed = torch.ones(64), torch.zeros(8, dtype=torch.uint8)
    for function in (5, 6):
        driver.add(function, x, packed, torch.empty(64), True, 1)
    native(x)
    assert [launch.function for launch in driver.launches] == [5]


def test_a_kernel_is_launched_in_its_own_context_alone(driver: Driver) -> None:
    """A new thread is in none; another device has another one."""
    x = torch.ones(64)
    driver.library.set_context(77)
    register_both(driver, itertools.count(900), x, 1)
    launches = []

    def in_thread(context: int | None) -> None:
        driver.library.set_context(context)
        driver.launches.clear()
        native(x)
        launches.append(len(driver.launches))

    for context in (None, 77, 78):
        thread = threading.Thread(target=in_thread, args=(context,))
        thread.start()
        thread.join()
    driver.library.set_context(None)
    assert launches == [0, 1, 0]


def test_the_compiled_kernels_take_what_is_passed() -> None:
    """They are compiled for an H100, without one: names from the source, sizes from the PTX."""
    pytest.importorskip("triton")
    from pmexp.bench.kernel_code import compiling
    from pmexp.packed_dropout import triton_kernels

    x, seed = torch.ones(64), torch.tensor([5])
    offered: dict[str, list[bool]] = {}
    with compiling(90) as compiled:
        for numel in (64, 65):
            y, packed = triton_kernels.packed_dropout(torch.ones(numel), seed, 0.3, 1)
            triton_kernels.apply_packed_mask(y, packed, 0.3, 1)
        triton_kernels.seeded_dropout(x, seed, 0.3)
        triton_kernels.bias_dropout_add(x, None, x, seed, 0.3, 1)
        triton_kernels.packed_dropout(torch.ones(1), seed, 0.3, 1)
        triton_kernels.pack_bits(x > 0, 1)
    for name, one in compiled.items():
        kernel = one.src.fn
        sizes = kernels.parameter_sizes(one.asm["ptx"])
        takes = kernels.can_be_passed(kernel, one)
        offered.setdefault(kernel.__name__, []).append(takes)
        assert not takes or sizes == SIZES[kernel.__name__], name
    assert offered == {
        "_dropout_kernel": [True, True, False, False, False],
        "_scale_kernel": [True, True],
        "_pack_kernel": [False],
    }


def test_with_the_packed_mask() -> None:
    """The mask is applied to something else as well."""
    other = torch.randn(77)
    for cache, x in itertools.product((True, False), (randn(77), torch.ones(77))):
        torch.manual_seed(11)
        with by_python():
            expected = packed_dropout_and_bits(x, 0.3, bits=2, cache_unpacked=cache)
        torch.manual_seed(11)
        y, packed = torch.ops.pmexp.plain_dropout_and_bits(x, 0.3, 2, cache)
        assert torch.equal(packed, expected[1]) and torch.equal(y, expected[0])
        assert not packed.requires_grad and y.requires_grad == x.requires_grad
        actual = torch.ops.pmexp.apply_plain_mask(other, packed, 0.3, 2)
        assert torch.equal(actual, ops.apply_packed_mask(other, packed, 0.3, 2))
        if x.requires_grad:
            assert torch.equal(torch.autograd.grad(y, x, other)[0], actual)
    assert torch.ops.pmexp.plain_dropout_and_bits(torch.ones(0), 0.3, 2, True) == (None, None)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**61 - 1))
def test_seeds_are_those_of_python(seed: int, quarter: int) -> None:
    signed = seed - (seed >> 63 << 64)
    assert torch.ops.pmexp.seed_at(signed, 4 * quarter) == cuda_seeds.seed_at(seed, 4 * quarter)


def test_module_parameters_are_plain() -> None:
    assert native(nn.Parameter(torch.ones(64))).requires_grad
