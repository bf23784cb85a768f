"""On a CUDA device: the bits of the reference, the masks of nn.Dropout, and CUDA graphs.

Inputs are ones where nothing else is said, so an output is its own scaled mask and the gradient of its sum.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from dropout_cases import Dropout, assert_gradient_is_mask, each_dropout
from pmexp.packed_dropout import backend, cuda_seeds, ops, packed_dropout, reference, torch_rng_record

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SHAPES = [(1,), (7,), (1000,), (4096,), (65537,), (33, 65)]
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, 2),
    "channels_last": lambda x: x[None].contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: x[::2, 1:, ::3],
    "misaligned": lambda x: x.flatten()[1:],
    "expanded": lambda x: x[:1].expand(5, -1, -1),
}

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@pytest.fixture(autouse=True)
def record_backend(record_property: Callable[[str, object], None]) -> None:
    record_property("device", torch.cuda.get_device_name())
    record_property("backend", backend(torch.device("cuda")))


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype, device="cuda", requires_grad=True)


def assert_operators_are_the_reference(x: Tensor, seed: int, p: float, bits: int) -> None:
    """Compares on the device what x, which lies on the CPU, is there in values, dtype and layout."""
    keep = reference.draw_mask(x.shape, torch.tensor([seed]), p)
    packed, expected = reference.pack_bits(keep, bits), reference.apply_mask(x, keep, p)
    there, seed_there = x.to("cuda"), torch.tensor([seed], device="cuda")
    y, packed_there = ops.packed_dropout(there, seed_there, p, bits)
    assert torch.equal(packed_there.cpu(), packed)
    for actual in (
        y,
        ops.apply_packed_mask(there, packed_there, p, bits),
        ops.seeded_dropout(there, seed_there, p),
        reference.apply_mask(there, keep.to("cuda"), p),
    ):
        assert torch.equal(actual.cpu(), expected)
        assert actual.stride() == torch.empty_like(there).stride()
    assert torch.equal(ops.pack_bits(keep.to("cuda"), bits).cpu(), packed)
    assert torch.equal(ops.unpack_bits(packed_there, x.shape, bits).cpu(), keep)


@pytest.mark.parametrize("bits", [1, 2, 4])
@each_dtype
def test_operators_equal_the_reference(dtype: torch.dtype, bits: int) -> None:
    for numel in (0, 1, 7, 8, 9, 31, 32, 33, 1001, 65537):
        for p in (0.1, 0.5, 1 / 3, 1e-9):
            x = torch.randn(numel, generator=torch.Generator().manual_seed(numel)).to(dtype)
            assert_operators_are_the_reference(x, 2**40 + numel, p, bits)


@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("with_bias", [True, False])
@each_dtype
def test_bias_dropout_add_equals_the_reference(dtype: torch.dtype, with_bias: bool, p: float) -> None:
    for rows, columns in ((1, 1), (3, 33), (64, 768)):
        x, residual = (randn(rows, columns, dtype=dtype) * scale for scale in (1, 3))
        bias = randn(columns, dtype=dtype) if with_bias else None
        seed = torch.tensor([-7], device="cuda")
        arguments = (x, bias, residual, seed, p, 1)
        on_cpu = [value.cpu() if isinstance(value, Tensor) else value for value in arguments]
        expected = reference.OPERATORS["bias_dropout_add"](*on_cpu)
        for actual, right in zip(ops.bias_dropout_add(*arguments), expected, strict=True):
            assert torch.equal(actual.cpu(), right)


@each_layout
def test_layouts_equal_the_reference(layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(torch.randn(6, 9, 11, generator=torch.Generator().manual_seed(5)))
    assert_operators_are_the_reference(x, 3, 0.4, 1)


@each_dtype
def test_a_kernel_launched_again_is_the_right_one(dtype: torch.dtype) -> None:
    """Addresses and sizes that kernels are specialised for take turns; see triton_launch.py."""
    x = torch.randn(4099, generator=torch.Generator().manual_seed(7)).to(dtype)
    for turn in range(3):
        for part in (x, x[1:], x[:4096], x[1:4097], x[:2], x[3:1003], x[:1]):
            assert_operators_are_the_reference(part, 2**40 + turn, 0.3, 1)
            there, seed = x.to("cuda")[-part.numel() :], torch.tensor([turn])
            expected = reference.seeded_dropout(x[-part.numel() :], seed, 0.3)
            assert torch.equal(ops.seeded_dropout(there, seed, 0.3).cpu(), expected)


@each_dropout
def test_two_calls_are_two_masks_each_with_its_own_backward(drop: Dropout) -> None:
    x = ones(10_001)
    first, second = drop(x), drop(x)
    share_kept_by_both = (first * second).detach().mean() / 4
    assert 0.22 < share_kept_by_both < 0.28  # 0.25 with a standard error of 0.0043
    assert_gradient_is_mask(first, x)
    assert_gradient_is_mask(second, x)


def assert_bits_of_nn_dropout(x: Tensor) -> None:
    """Compares output, gradient and the generator's state afterwards."""
    x, results = x.detach().requires_grad_(), []
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(6)).to(x)
    for drop in (F.dropout, partial(packed_dropout, rng="torch")):
        torch.manual_seed(9)
        y = drop(x, 0.3)
        results.append([y, torch.autograd.grad(y, x, gradient)[0], torch.cuda.get_rng_state()])
    assert all(torch.equal(expected, actual) for expected, actual in zip(*results, strict=True))


def randn(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).to("cuda", dtype)


@each_dtype
@each_shape
def test_rng_torch_is_nn_dropout_bit_for_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Triton's kernels draw it in one pass, native_dropout itself under the torch reference."""
    before = torch_rng_record().get("reproduced", 0)
    assert_bits_of_nn_dropout(randn(*shape, dtype=dtype))
    reproduced = torch_rng_record().get("reproduced", 0) - before
    assert reproduced == (not backend(torch.device("cuda")).startswith("torch reference"))


@each_dtype
@each_layout
def test_rng_torch_on_any_layout(layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    assert_bits_of_nn_dropout(layout(randn(6, 9, 11, dtype=dtype)))


def test_a_seed_computed_on_the_host_is_the_one_torch_draws_on_the_device() -> None:
    x = ones(4099).detach()
    torch.manual_seed(2**40 + 5)
    outputs = [packed_dropout(x, 0.3) for _ in range(5)]
    after = torch.cuda.get_rng_state()
    torch.manual_seed(2**40 + 5)
    for y in outputs:
        seed = torch.randint(0, 2**62, (1,), device="cuda")
        assert torch.equal(y, ops.packed_dropout(x, seed, 0.3, 1)[0])
        assert torch.equal(y, ops.packed_dropout(x, seed.cpu(), 0.3, 1)[0])
    assert torch.equal(torch.cuda.get_rng_state(), after)
    assert cuda_seeds.known_on_host(x.device)


@each_dropout
def test_a_cuda_graph_draws_a_new_mask_in_each_replay(drop: Dropout) -> None:
    """The seed is drawn on the device, inside the graph. Kernels are loaded before the capture, as torch asks."""
    x, stream = ones(10_001), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.autograd.grad(drop(x).sum(), x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = drop(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    masks = []
    for seed in (None, None, 5, 5):
        if seed is not None:
            torch.manual_seed(seed)
        graph.replay()
        assert torch.equal(gradient, y.detach())
        masks.append(y.detach().clone())
    assert 0.22 < (masks[0] * masks[1]).mean() / 4 < 0.28
    assert torch.equal(masks[2], masks[3])


@pytest.mark.parametrize("reentrant", [True, False])
@each_dropout
def test_checkpointing(drop: Dropout, reentrant: bool) -> None:
    x = ones(1000)
    y = checkpoint(lambda t: drop(t) * 1.0, x, use_reentrant=reentrant)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


@each_dropout
def test_masks_kept_on_the_cpu(drop: Dropout) -> None:
    x = ones(1000)
    with save_on_cpu(pin_memory=True):
        y = drop(x)
    assert_gradient_is_mask(y, x)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # inductor's own
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])  # the second runs in CUDA graphs
@each_dropout
def test_compiled(drop: Dropout, mode: str) -> None:
    torch.compiler.reset()
    run, x = torch.compile(lambda t: (drop(t), drop(t)), fullgraph=True, mode=mode), ones(10_001)
    before = None
    for _ in range(4):  # CUDA graphs are recorded in the second run
        torch.compiler.cudagraph_mark_step_begin()
        first, second = run(x)
        (gradient,) = torch.autograd.grad(first.sum() + 4 * second.sum(), x)
        assert torch.equal(gradient, first + 4 * second)
        assert 0.22 < (first * second).detach().mean() / 4 < 0.28
        assert before is None or 0.22 < (first * before).detach().mean() / 4 < 0.28
        before = first.detach().clone()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("backend", ["aot_eager_decomp_partition", "inductor"])
@pytest.mark.parametrize("budget", [0.0, 0.5])
def test_compiled_with_less_memory(budget: float, backend: str) -> None:
    """With a budget of 0 the seed is drawn again, by the state that the generator had."""

    def step(x: Tensor) -> Tensor:
        y = packed_dropout(x * 2.0, 0.5)
        return y * packed_dropout(y, 0.5)

    torch.compiler.reset()
    results = []
    with torch._functorch.config.patch(activation_memory_budget=budget):
        for run in (step, torch.compile(step, fullgraph=True, backend=backend)):
            torch.manual_seed(3)
            x = ones(10_001)
            y = run(x)
            results.append((y, *torch.autograd.grad(y.sum(), x)))
    assert all(torch.equal(eager, other) for eager, other in zip(*results, strict=True))


@pytest.mark.slow
def test_more_elements_than_an_int32_counts() -> None:
    """The last bits of a mask of 2^31 + 64 elements are those of their definition."""
    name = backend(torch.device("cuda"))
    if name.startswith("torch reference"):
        pytest.skip(f"{name} would need 100 GiB")
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of free device memory")
    numel, p = 2**31 + 64, 0.3
    seed = torch.tensor([7], device="cuda")
    y, packed = ops.packed_dropout(torch.ones(numel, dtype=torch.bfloat16, device="cuda"), seed, p, 1)
    counter = 8 * (numel // 32 - 1) + torch.arange(8)
    zero = torch.tensor(0)
    words = torch.stack(reference.philox((counter, zero, zero, zero), (torch.tensor(7), zero)))
    keep = (words < round((1 - p) * 2**32)).flatten()
    assert torch.equal(y[-32:].cpu() != 0, keep)
    assert torch.equal(packed[-4:].cpu(), reference.pack_bits(keep))


def neighbours_alike(first: Tensor, second: Tensor) -> float:
    """Share of equal bits between the second half of each 8 elements of a mask and the first of the next mask's."""
    return ((first != 0).view(-1, 8)[:, 4:] == (second != 0).view(-1, 8)[:, :4]).double().mean().item()


@each_dtype
def test_whether_consecutive_masks_of_nn_dropout_overlap(
    dtype: torch.dtype, record_property: Callable[[str, object], None]
) -> None:
    """It only reports: 0.5 is what independent masks have; 1.0 would be an error of torch's 16-bit kernels.

    A suspicion from reading them: eight elements a thread take two Philox counters, and one is reserved.
    """
    x = torch.ones(65536, dtype=dtype, device="cuda")
    torch.manual_seed(1)
    alike = neighbours_alike(F.dropout(x), F.dropout(x))
    record_property(f"overlap of consecutive nn.Dropout masks, {dtype}", alike)
    assert 0.49 < alike <= 1.0


@each_dtype
def test_consecutive_masks_of_ours_do_not_overlap(dtype: torch.dtype) -> None:
    """32 768 pairs agree in 0.5 of their bits, with a standard error of 0.0028."""
    x = torch.ones(65536, dtype=dtype, device="cuda")
    torch.manual_seed(1)
    assert abs(neighbours_alike(packed_dropout(x), packed_dropout(x)) - 0.5) < 5 * 0.0028
