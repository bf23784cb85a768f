"""Times the kernels by themselves, without autograd: a claim about them is read from these figures."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.device_time import DeviceTimer, ratio_cells, rounds
from pmexp.bench.gpu.dropouts import DTYPES, P, tensors
from pmexp.packed_dropout import cuda_backend, cuda_mapping, cuda_rng, ops, reference

_COPY = "copy"
_REPEATS = 10
_COMPARED = 2**20  # first elements of a mask, which the reference draws as well
_BLOCKS, _WARPS = (128, 64, 32), (4, 8, 2)


@dataclass(frozen=True)
class _Kernel:
    call: Callable[[], object]
    mask_bytes: float  # an element; besides the two passes over the tensor


@torch.no_grad()
def measure_kernels(bench: Bench, timer: DeviceTimer, dtype: str, numel: int, most_rounds: int) -> None:
    """Times our kernels, torch's own, and a copy, at one size."""
    with_grad, grad = tensors(numel, DTYPES[dtype], bench.device)
    x, seed = with_grad.detach(), torch.tensor([2**40 + 7], device=bench.device)
    what = f"kernels, {dtype}: bits, results and gradients are those of one mask, and it is the reference's"
    wrong = _wrong(ops.operators_for(x), x, grad, seed)
    bench.check(what, not wrong, wrong)
    if wrong:
        return
    kernels = _kernels(x, grad, seed)
    repeats = 2 if bench.tiny else _REPEATS
    seconds: dict[str, list[float]] = defaultdict(list)
    for order in rounds(list(kernels), most_rounds, bench.budget):
        for name in order:
            kernels[name].call()
            seconds[name].append(timer.time(kernels[name].call, repeats).seconds)
    for name, kernel in kernels.items():
        median = statistics.median(seconds[name])
        moved = numel * (2 * x.element_size() + kernel.mask_bytes)
        more_bytes = moved / (2 * numel * x.element_size())
        bench.row(
            "kernels",
            kernel=name,
            dtype=dtype,
            elements=numel,
            us=1e6 * median,
            GB_per_s=moved / median / 1e9,
            **ratio_cells(seconds[_COPY], seconds[name], "share_of_copy", factor=more_bytes),
        )


def _kernels(x: Tensor, grad: Tensor, seed: Tensor) -> dict[str, _Kernel]:
    ours, target = ops.operators_for(x), torch.empty_like(x)
    _, packed = ours.packed_dropout(x, seed, P, 1)
    _, mask = torch.native_dropout(x, P, True)
    scale = cuda_mapping.backward_scale(P)
    backward = torch.ops.aten.native_dropout_backward.default
    kernels = {
        _COPY: _Kernel(lambda: target.copy_(x), 0),
        "torch forward": _Kernel(lambda: torch.native_dropout(x, P, True), 1),
        "torch backward": _Kernel(lambda: backward(grad, mask, scale), 1),
        "packed forward": _Kernel(lambda: ours.packed_dropout(x, seed, P, 1), 1 / 8),
        "packed backward": _Kernel(lambda: ours.apply_packed_mask(grad, packed, P, 1), 1 / 8),
        "seeded, each way": _Kernel(lambda: ours.seeded_dropout(x, seed, P), 0),
    }
    if x.device.type == "cuda":
        call = lambda: cuda_rng.native_dropout_packed(x, P, 1)  # noqa: E731
        kernels["packed forward, rng=torch"] = _Kernel(call, 1 / 8)
    return kernels


def _wrong(operators: Any, x: Tensor, grad: Tensor, seed: Tensor) -> str:
    """What is wrong with a forward and its backward; nothing where they are right."""
    y, packed = operators.packed_dropout(x, seed, P, 1)
    keep = y != 0
    first = min(x.numel(), _COMPARED)
    facts = {
        "the mask is not the reference's": (
            keep[:first],
            reference.draw_mask(torch.Size([first]), seed, P),
        ),
        "the bits are not those of the result": (packed, reference.pack_bits(keep)),
        "the result is another": (y, reference.apply_mask(x, keep, P)),
        "the gradient is another": (
            operators.apply_packed_mask(grad, packed, P, 1),
            reference.apply_mask(grad, keep, P),
        ),
        "the seeded result is another": (operators.seeded_dropout(x, seed, P), y),
    }
    return "; ".join(what for what, (got, expected) in facts.items() if not torch.equal(got, expected))


@torch.no_grad()
def measure_shapes(bench: Bench, timer: DeviceTimer, dtype: str, numel: int, most_rounds: int) -> None:
    """Times forward and backward with other sizes of a program, to choose by."""
    if bench.device.type != "cuda":
        bench.left_out("shapes of kernels: Triton's kernels run on CUDA")
        return
    shapes_of(cuda_backend.operators(), bench, timer, dtype, numel, most_rounds)


def shapes_of(
    kernels: Any, bench: Bench, timer: DeviceTimer, dtype: str, numel: int, most_rounds: int
) -> None:
    """Times the shapes of a module with `_BLOCKS` and `_OPTIONS["num_warps"]`, its own first."""
    with_grad, grad = tensors(numel, DTYPES[dtype], bench.device)
    x, seed = with_grad.detach(), torch.tensor([2**40 + 7], device=bench.device)
    own = (kernels._BLOCKS, kernels._OPTIONS["num_warps"])
    shapes = [own, *(shape for shape in product(_BLOCKS, _WARPS) if shape != own)]
    usable = []
    for shape in shapes:
        if bench.budget.left < 5:
            bench.left_out(f"shapes of kernels, {shape}: no time was left")
            continue
        with bench.part(f"shape {shape}"), _shaped(kernels, *shape):
            wrong = _wrong(kernels, x, grad, seed)
            if wrong:
                bench.check(f"kernels of {shape[0]} blocks, {shape[1]} warps", False, wrong)
            else:
                usable.append(shape)
    _, packed = kernels.packed_dropout(x, seed, P, 1)
    calls = {
        "forward": lambda: kernels.packed_dropout(x, seed, P, 1),
        "backward": lambda: kernels.apply_packed_mask(grad, packed, P, 1),
    }
    seconds: dict[tuple[Any, str], list[float]] = defaultdict(list)
    for order in rounds(usable, most_rounds, bench.budget):
        for shape in order:
            with _shaped(kernels, *shape):
                for phase, call in calls.items():
                    call()
                    seconds[shape, phase].append(timer.time(call, 2 if bench.tiny else _REPEATS).seconds)
    for shape in usable:
        row: dict[str, float | None] = {}
        for phase in calls:
            times = seconds[shape, phase]
            row[f"{phase}_us"] = 1e6 * statistics.median(times)
            row |= ratio_cells(seconds[own, phase], times, f"{phase}_times_own", f"{phase}_")
        bench.row("kernel_shapes", blocks=shape[0], warps=shape[1], own=shape == own, dtype=dtype, **row)


@contextmanager
def _shaped(kernels: Any, blocks: int, warps: int) -> Iterator[None]:
    before = kernels._BLOCKS, kernels._OPTIONS
    kernels._BLOCKS, kernels._OPTIONS = blocks, {**before[1], "num_warps": warps}
    try:
        yield
    finally:
        kernels._BLOCKS, kernels._OPTIONS = before
