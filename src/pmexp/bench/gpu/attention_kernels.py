"""Which kernel of scaled_dot_product_attention runs, what it computes, and what it costs."""

import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from pmexp.bench.gpu.attention_calls import RATE, Call, LongformerSize, calls, longformer, longformer_sizes
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.turns import in_turn
from pmexp.bench.gpu.ways import distance
from pmexp.systems.sdpa_kernels import WORDS, flash_first, kernels_that_ran

_OPERATORS = {  # by the start of an operator's name; math is a composition of others
    "aten::_scaled_dot_product_flash_attention": SDPBackend.FLASH_ATTENTION,
    "aten::_scaled_dot_product_efficient_attention": SDPBackend.EFFICIENT_ATTENTION,
    "aten::_scaled_dot_product_cudnn_attention": SDPBackend.CUDNN_ATTENTION,
}
_FARTHEST = {"bfloat16": 2**-6, "float16": 2**-8, "float32": 2**-10}  # of output and gradients, relative
_ROUNDS, _REPEATS = 8, 4
_OF_ATTENTION = re.compile("flash|fmha|attention|sdpa", re.IGNORECASE)


def attention_kernels(bench: Bench, budget: Budget) -> None:
    """The table "attention_kernels", a row a call and kernel, and "longformer_attention", against eager."""
    wanted = list(longformer_sizes(bench.tiny))
    for size in wanted:
        with bench.part(f"Longformer's attention at {size.tokens:,} tokens"):
            _against_eager(bench, budget.part(4), size)
    found = calls(bench.device, bench.tiny)
    while (call := next(found, None)) is not None and (budget.left > 0 or bench.tiny):
        with bench.part(str(call)):
            _measure_call(bench, Budget(min(2.0, max(budget.left, 0.1))), call)
    if call is not None:
        bench.left_out(f"attention kernels: no time was left from {call} on")


def device_kernels(bench: Bench, budget: Budget) -> None:
    """The table "attention_device_kernels": names by the profiler, which slows what comes after it."""
    for call in calls(bench.device, bench.tiny):
        if budget.left < 0 and not bench.tiny:
            bench.left_out(f"the profiler's names: no time was left from {call} on")
            return
        names = _profiled(partial(_both, call, _as_systems_do()))
        bench.row("attention_device_kernels", **_of(call), device_kernels=names or "none were seen")


def _measure_call(bench: Bench, budget: Budget, call: Call) -> None:
    attention = nn.Module()
    chosen = _operator_of(lambda: _forward(call, lambda: flash_first(attention)))
    note = kernels_that_ran(attention)
    detail = f"{note!r}, and {WORDS[chosen]} ran"
    bench.check(f"{call}: the run's record names the kernel that ran", WORDS[chosen] in note, detail)
    kernels = [chosen]
    if call.alternatives:
        kernels += [kernel for kernel in WORDS if kernel != chosen and _takes(kernel, call)]
    expected = _both(call.wide(), partial(sdpa_kernel, [SDPBackend.MATH]))
    for kernel in kernels:
        _check(bench, call, kernel, expected)
    del expected
    turns = in_turn(
        {WORDS[kernel]: partial(_both, call, partial(sdpa_kernel, [kernel])) for kernel in kernels},
        bench.device,
        budget,
        _ROUNDS,
        _REPEATS,
    )
    for kernel, turn in turns.items():
        is_chosen = kernel == WORDS[chosen]
        bench.row("attention_kernels", **_of(call), kernel=kernel, chosen=is_chosen, **turn.cells())


def _of(call: Call) -> dict[str, str | float]:
    query, key = ("x".join(map(str, tensor.shape)) for tensor in (call.query, call.key))
    shapes = {"layer": call.layer, "query": query, "key": key, "dtype": call.dtype}
    return {**shapes, "mask": call.mask_words, "dropout": call.dropout}


Context = Callable[[], Any]  # makes the context of a forward


def _as_systems_do() -> Context:
    attention = nn.Module()
    return lambda: flash_first(attention)


def _forward(call: Call, context: Context) -> Tensor:
    with context():
        return call.attend()


def _both(call: Call, context: Context) -> list[Tensor]:
    """The output and the gradients of query, key and value, for a gradient that is the same each time."""
    output = _forward(call, context)
    weights = torch.linspace(-1, 1, output.shape[-1], device=output.device, dtype=output.dtype)
    return [output.detach(), *torch.autograd.grad(output, call.inputs, weights.expand_as(output))]


def _takes(kernel: SDPBackend, call: Call) -> bool:
    """Whether the kernel takes the call, forward and backward; torch says no by an error and warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _both(call, partial(sdpa_kernel, [kernel]))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return False
    return True


def _check(bench: Bench, call: Call, kernel: SDPBackend, expected: list[Tensor]) -> None:
    """Without dropout against the math kernel in float32; with it, rows that sum to 1 on average."""
    context, words = partial(sdpa_kernel, [kernel]), WORDS[kernel]
    plain = call.with_dropout(0.0)
    if _takes(kernel, plain):
        off = max(distance([a], [b]) for a, b in zip(_both(plain, context), expected, strict=True))
        what = f"{plain}: the {words} gives output and gradients of the math kernel in float32"
        bench.check(what, off <= _FARTHEST[call.dtype], f"{off:.3g} of {_FARTHEST[call.dtype]:.3g}")
    if call.dropout:
        with context(), torch.no_grad():
            sums = call.attend(torch.ones_like(call.value)).float()[..., 0]
        allowed = 3 / math.sqrt(sums.numel())
        off, spread = abs(sums.mean().item() - 1), sums.std().item()
        what = f"{call}: the {words} drops, and its rows sum to 1 on average"
        held = off <= allowed and spread > 2 * _FARTHEST[call.dtype]
        bench.check(what, held, f"{off:.3g} of {allowed:.3g} off 1, with a spread of {spread:.3g}")


def _against_eager(bench: Bench, budget: Budget, size: LongformerSize) -> None:
    """One attention layer, eager and in blocks, under autocast; compared in float32 without dropout."""
    device = bench.device
    eager, sliding, given = longformer(size, device, bench.tiny, 0.0)
    off = max(distance([a], [b]) for a, b in zip(_layer(sliding, given), _layer(eager, given), strict=True))
    what = f"Longformer's blocks at {size.tokens:,} tokens give the eager attention's output and gradient"
    bench.check(what, off <= _FARTHEST["float32"], f"{off:.3g}")
    eager, sliding, given = longformer(size, device, bench.tiny, RATE)

    def step(attention: Any) -> object:
        with torch.autocast(device.type, torch.bfloat16):
            return _layer(attention, given)

    steps = {"eager": partial(step, eager), "blocks": partial(step, sliding)}
    for name, turn in in_turn(steps, device, budget, _ROUNDS, _REPEATS).items():
        cells = {"tokens": size.tokens, "batch": size.batch, "dropout": RATE, "attention": name}
        bench.row("longformer_attention", **cells, **turn.cells())
    bench.note(f"Longformer at {size.tokens:,} tokens, bf16 autocast: {kernels_that_ran(sliding)}")


def _layer(attention: Any, given: Any) -> list[Tensor]:
    """The output and the gradient of the layer's input."""
    output = given.through(attention)
    weights = torch.linspace(-1, 1, output.shape[-1], device=output.device, dtype=output.dtype)
    return [output.detach(), *torch.autograd.grad(output, [given.hidden], weights.expand_as(output))]


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


def _profiled(call: Callable[[], object]) -> str:
    """The kernels of attention that the device ran, or the longest three where no name says so."""
    call()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    took: dict[str, float] = {}
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA:
            name = re.split(r"[<(]", event.name.removeprefix("void "))[0].strip()
            took[name] = took.get(name, 0.0) + event.time_range.elapsed_us()
    ordered = sorted(took, key=lambda name: -took[name])
    return ", ".join([name for name in ordered if _OF_ATTENTION.search(name)] or ordered[:3])
