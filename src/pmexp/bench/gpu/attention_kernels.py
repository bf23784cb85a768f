"""Finds which kernel of scaled_dot_product_attention runs, what it computes, and what it costs."""

import math
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from pmexp.bench.gpu.attention_calls import (
    RATE,
    AttentionCall,
    LongformerSize,
    calls,
    longformer,
    longformer_sizes,
)
from pmexp.bench.gpu.bench import Bench, Cell
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.turns import Turns, in_turn
from pmexp.bench.gpu.ways import distance
from pmexp.systems.sdpa_kernels import WORDS, flash_first, kernels_that_ran

_OPERATORS = {  # by the start of an operator's name; math is a composition of others
    "aten::_scaled_dot_product_flash_attention": SDPBackend.FLASH_ATTENTION,
    "aten::_scaled_dot_product_efficient_attention": SDPBackend.EFFICIENT_ATTENTION,
    "aten::_scaled_dot_product_cudnn_attention": SDPBackend.CUDNN_ATTENTION,
}
_FARTHEST = {"bfloat16": 2**-6, "float16": 2**-8, "float32": 2**-10}  # relative, output and gradients
_LEAST_SPREAD = 2**-7  # that the rows' sums have under dropout; rounding's is a tenth of it
_SECONDS_A_CALL = 2.0
_ROUNDS, _REPEATS = 8, 4
_OF_ATTENTION = re.compile("flash|fmha|attention|sdpa", re.IGNORECASE)


def attention_kernels(bench: Bench, budget: Budget) -> None:
    """Writes the table "attention_kernels", a row a call, of the kernel that runs under `flash_first`, as it
    does in a run, and the table "longformer_attention", of a whole layer against eager."""
    for size in longformer_sizes(bench.tiny):
        with bench.part(f"Longformer's attention at {size.tokens:,} tokens"):
            _against_eager(bench, budget.part(4), size)
    for name, make in _in_time(bench, budget, "the kernel of"):
        with bench.part(name):
            _measure_chosen(bench, Budget(min(_SECONDS_A_CALL, budget.left)), make())


def other_kernels(bench: Bench, budget: Budget) -> None:
    """Writes the table "other_attention_kernels": each kernel that takes a call, against the chosen one.

    Nobody runs these as yet, and a kernel that ends the device's context ends what comes behind it.
    """
    for name, make in _in_time(bench, budget, "the other kernels of"):
        with bench.part(f"the other kernels of {name}"):
            call = make()
            if call.query.dtype is torch.bfloat16:
                _measure_others(bench, Budget(min(_SECONDS_A_CALL, budget.left)), call)


def device_kernels(bench: Bench, budget: Budget) -> None:
    """Writes the table "attention_device_kernels": names by the profiler, which slows what comes after it."""
    for _, make in _in_time(bench, budget, "the profiler's names of"):
        call = make()
        with flash_first(nn.Module()):
            names = _profiled(bench.device, call.both)
        bench.row("attention_device_kernels", **_cells(call), device_kernels=names or "none were seen")


def _in_time(bench: Bench, budget: Budget, what: str) -> Iterator[tuple[str, Callable[[], AttentionCall]]]:
    """Yields the calls as long as there is time, and names the others as left out."""
    for name, make in calls(bench.device, bench.tiny).items():
        if budget.left > 0:
            yield name, make
        else:
            bench.left_out(f"{what} {name}: no time was left")


def _measure_chosen(bench: Bench, budget: Budget, call: AttentionCall) -> None:
    attention = nn.Module()
    with flash_first(attention):
        chosen = _operator_of(call.attend)
    note = kernels_that_ran(attention)
    detail = f"the record: {note!r}; the {WORDS[chosen]} ran"
    bench.check(f"{call}: the run's record names the kernel that ran", WORDS[chosen] in note, detail)
    for name, turn in _measured(bench, budget, call, [chosen]).items():
        cells: dict[str, Cell] = {"kernel": name, "both_ms": turn.ms}
        bench.row("attention_kernels", **_cells(call), **cells, peak_above_inputs_MiB=turn.above_MiB)


def _measure_others(bench: Bench, budget: Budget, call: AttentionCall) -> None:
    with flash_first(nn.Module()):
        chosen = _operator_of(call.attend)
    kernels = [chosen, *(kernel for kernel in WORDS if kernel != chosen and _takes(kernel, call))]
    for name, turn in _measured(bench, budget, call, kernels).items():
        bench.row("other_attention_kernels", **_cells(call), kernel=name, **turn.cells())


def _measured(
    bench: Bench, budget: Budget, call: AttentionCall, kernels: list[SDPBackend]
) -> dict[str, Turns]:
    """Times forward and backward by the name of the kernel, once they were checked."""
    _check_numbers(bench, call, kernels)
    if call.dropout:
        _check_dropout(bench, call, kernels)
    runs = {WORDS[kernel]: partial(_both, call, kernel) for kernel in kernels}
    return in_turn(bench, runs, budget, _ROUNDS, _REPEATS)


def _cells(call: AttentionCall) -> dict[str, Cell]:
    query, key = ("x".join(map(str, tensor.shape)) for tensor in (call.query, call.key))
    shapes: dict[str, Cell] = {
        "layer": call.layer,
        "query_shape": query,
        "key_shape": key,
        "dtype": call.dtype,
    }
    return shapes | {"mask": call.mask_words, "dropout": call.dropout}


def _both(call: AttentionCall, kernel: SDPBackend) -> list[Tensor]:
    with sdpa_kernel([kernel]):
        return call.both()


def _takes(kernel: SDPBackend, call: AttentionCall) -> bool:
    """Whether the kernel takes the call, forward and backward; torch says no by an error and warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _both(call, kernel)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return False
    return True


def _check_numbers(bench: Bench, call: AttentionCall, kernels: list[SDPBackend]) -> None:
    """Compares output and gradients, without dropout, with the math kernel in float32."""
    plain, allowed = call.without_dropout(), _FARTHEST[call.dtype]
    with sdpa_kernel([SDPBackend.MATH]):
        expected = call.wide().both()
    off = {
        WORDS[kernel]: max(distance([a], [b]) for a, b in zip(_both(plain, kernel), expected, strict=True))
        for kernel in kernels
        if _takes(kernel, plain)
    }
    what = f"{plain}: the numbers of the math kernel in float32 by the {' and the '.join(off)}"
    detail = ", ".join(f"{name}: {error:.3g}" for name, error in off.items())
    held = bool(off) and all(error <= allowed for error in off.values())
    bench.check(what, held, f"{detail}; of {allowed:.3g}")


def _check_dropout(bench: Bench, call: AttentionCall, kernels: list[SDPBackend]) -> None:
    """Checks that dropped rows sum to 1 on average, and not each."""
    held, details = True, []
    for kernel in kernels:
        with sdpa_kernel([kernel]), torch.no_grad():
            sums = call.attend(torch.ones_like(call.value)).float()[..., 0]
        off, spread = abs(sums.mean().item() - 1), sums.std().item()
        held = held and off <= 3 / math.sqrt(sums.numel()) and spread > _LEAST_SPREAD
        details.append(f"{WORDS[kernel]}: {off:.3g} off, with a spread of {spread:.3g}")
    words = " and the ".join(WORDS[kernel] for kernel in kernels)
    bench.check(f"{call}: rows dropped by the {words} sum to 1 on average", held, "; ".join(details))


def _against_eager(bench: Bench, budget: Budget, size: LongformerSize) -> None:
    """Compares one attention layer, eager and in blocks, in float32, and times it under autocast."""
    eager, sliding, given = longformer(size, bench.device, bench.tiny, 0.0)
    pairs = zip(given.both(sliding), given.both(eager), strict=True)
    off = max(distance([a], [b]) for a, b in pairs)
    what = f"Longformer's blocks at {size.tokens:,} tokens give the eager attention's output and gradient"
    bench.check(what, off <= _FARTHEST["float32"], f"{off:.3g} of {_FARTHEST['float32']:.3g}")
    eager, sliding, given = longformer(size, bench.device, bench.tiny, RATE)

    def step(attention: Any) -> None:
        with torch.autocast(bench.device.type, torch.bfloat16):
            given.both(attention)

    steps = {"eager": partial(step, eager), "blocks": partial(step, sliding)}
    for name, turn in in_turn(bench, steps, budget, _ROUNDS, _REPEATS).items():
        cells: dict[str, Cell] = {"tokens": size.tokens, "batch": size.batch, "dropout": RATE}
        bench.row("longformer_attention", **cells, attention=name, **turn.cells())
    bench.note(f"Longformer at {size.tokens:,} tokens, bf16 autocast: {kernels_that_ran(sliding)}")


class _Operators(TorchDispatchMode):
    """Keeps the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def _operator_of(forward: Callable[[], object]) -> SDPBackend:
    """The kernel that ran, by the operators that were called and not by what torch says it would choose."""
    with _Operators() as seen:
        forward()
    for name in seen.names:
        for start, kernel in _OPERATORS.items():
            if name.startswith(start):
                return kernel
    return SDPBackend.MATH


def _profiled(device: torch.device, call: Callable[[], object]) -> str:
    """The kernels of attention that the device ran, or the longest three where no name says so."""
    call()
    on_cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU]) as profiler:
        call()
        if on_cuda:
            torch.cuda.synchronize(device)
    took: dict[str, float] = {}
    for event in profiler.events() or []:
        if event.device_type.name == "CUDA":
            name = re.split(r"[<(]", event.name.removeprefix("void "))[0].strip()
            took[name] = took.get(name, 0.0) + event.time_range.elapsed_us()
    ordered = sorted(took, key=lambda name: -took[name])
    return ", ".join([name for name in ordered if _OF_ATTENTION.search(name)] or ordered[:3])
