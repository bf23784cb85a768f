"""Checks that native calls of packed dropout do what Python's calls do, and measures what they save the
host."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pmexp.bench.contenders import BASELINE
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.dropouts import DTYPES, PACKED, TimedDropout, dropouts
from pmexp.bench.gpu.equality import check_all, gradient_of, leaf, random, rng_state
from pmexp.bench.gpu.host_cost import measure_host_cost
from pmexp.bench.gpu.same_losses import Start, Step, difference
from pmexp.bench.gpu.stages.launch_bound import SMALLEST, TINYBERT, LaunchCase, measure_steps
from pmexp.bench.gpu.workload import BASELINE as STOCK
from pmexp.bench.gpu.workload import Workload
from pmexp.packed_dropout import backend, cuda_backend, native, packed_dropout

_VARIANT = "pm-drop"
_BY_PYTHON, _NATIVE = "packed, calls by Python", "packed, native calls"
_NUMELS = (1, 7, 16, 4096, 4097, 2**20 + 1)
_ROUNDS, _HOST_ROUNDS = 6, 15


def measure(bench: Bench) -> None:
    if bench.device.type != "cuda":
        bench.left_out("native calls need CUDA")
        return
    native.choose("cuda", "native")
    try:
        name = backend(bench.device)
    except RuntimeError as error:
        bench.left_out(str(error))
        return
    bench.check("native calls are what runs", name.endswith(", native calls"), name)
    if name.endswith(", native calls"):
        bench.in_order(PIECES)


def _equality(bench: Bench) -> None:
    """Checks that native calls give what Python's give, twice, since at first they may launch by Python."""
    check_all(bench, "native calls give what Python's calls give, bit for bit", _compared(bench))


def _compared(bench: Bench) -> Iterator[tuple[str, Tensor, Tensor]]:
    numels = _NUMELS[: 3 if bench.tiny else None]
    for (name, dtype), numel, offset in itertools.product(DTYPES.items(), numels, (0, 1)):
        x = leaf(random(bench.device, dtype, numel + offset)[offset:])
        for bits in (1, 2, 4):
            with native.by_python():
                right = _results(x, bits)
            for turn in ("first", "second"):
                for what, got in _results(x, bits).items():
                    yield f"{what}, {numel} elements in {name}, {bits} bits, {turn} time", got, right[what]


def _results(x: Tensor, bits: int) -> dict[str, Tensor]:
    torch.manual_seed(11)
    y = packed_dropout(x, 0.3, bits=bits)
    gradient = gradient_of(y, x, x.detach().flip(0))
    return {"output": y, "gradient": gradient, "state of the generator": rng_state(x.device)}


def _launches(bench: Bench) -> None:
    """Runs forward and backward of each kind thrice; Python launches a kernel for the first at most."""
    late: list[str] = []
    with launches_by_python() as names:
        for dtype, numel, bits in itertools.product(DTYPES.values(), (1024, 1001), (1, 2, 4)):
            x = leaf(random(bench.device, dtype, numel))
            _results(x, bits)
            names.clear()
            for _ in range(2):
                _results(x, bits)
            late += names
    what = "Python launches no kernel of a kind after the first"
    bench.check(what, not late, f"{len(late)} launches of {', '.join(sorted(set(late)))}" if late else "")


@contextmanager
def launches_by_python() -> Iterator[list[str]]:
    """Yields the names, as they come, of the kernels that Python launches inside."""
    kernels, names = cuda_backend.operators(), list[str]()
    launch = kernels.launch

    def counted(kernel: Any, *arguments: Any, **options: Any) -> None:
        names.append(kernel.__name__)
        launch(kernel, *arguments, **options)

    kernels.launch = counted
    try:
        yield names
    finally:
        kernels.launch = launch


def _host_cost(bench: Bench) -> None:
    known = {dropout.name: dropout for dropout in dropouts()}

    def packed(name: str, within: Any) -> TimedDropout:
        contender = replace(known[PACKED].contender, name=name)
        return replace(known[PACKED], contender=contender, within=within)

    field = [known[BASELINE], packed(_BY_PYTHON, native.by_python), packed(_NATIVE, nullcontext)]
    measure_host_cost(bench, 2 if bench.tiny else _HOST_ROUNDS, field)


def _steps(bench: Bench) -> None:
    size, batch = (SMALLEST, 2) if bench.tiny else (TINYBERT, 32)
    case = LaunchCase("bf16", size, batch, False, 2, 1)
    workload = Workload(size, "eager", case.precision, bench.device, (STOCK, _VARIANT))
    takers: dict[str, Step] = {
        STOCK: partial(workload.step, STOCK, batch),
        _BY_PYTHON: partial(_step_by_python, workload, batch),
        _NATIVE: partial(workload.step, _VARIANT, batch),
    }
    for step in takers.values():
        step()
    fault = _fault(workload, batch, takers)
    bench.check(f"{case}: native calls give the losses of Python's", fault is None, fault or "")
    if fault is None:
        measure_steps(bench, bench.budget, case, takers, _ROUNDS)


def _step_by_python(workload: Workload, batch: int) -> Tensor:
    with native.by_python():
        return workload.step(_VARIANT, batch)


def _fault(workload: Workload, batch: int, takers: Mapping[str, Step]) -> str | None:
    start = Start(workload, batch)
    expected, others = (start.losses(takers[_BY_PYTHON], seed) for seed in (1, 2))
    got = start.losses(takers[_NATIVE], 1)
    start.restore()
    return difference(expected, got, others)


PIECES = {
    "equality with Python's calls": _equality,
    "launches by Python": _launches,
    "host's cost": _host_cost,
    "steps of TinyBERT": _steps,
}
