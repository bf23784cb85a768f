"""Measures what a dropout costs the host, on tensors so small that the device has nothing to do."""

import statistics
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from pmexp.bench.contenders import BACKWARD, BASELINE, BOTH, FORWARD
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.device_time import ratio_cells, rounds, wall_seconds
from pmexp.bench.gpu.dropouts import TimedDropout, checked, tensors

_CHAIN, _ELEMENTS = 50, 64  # dropouts one behind the other, and the elements of each

Seconds = dict[tuple[str, str], list[float]]  # one a round, by contender and phase


def measure_host_cost(bench: Bench, most_rounds: int, among: Sequence[TimedDropout] | None = None) -> None:
    """A chain of small dropouts, as the host calls them in a model: in backward, by one call of autograd.

    among: those to measure, the baseline first; else all of dropouts()."""
    x, grad = tensors(_ELEMENTS, torch.float32, bench.device)
    field = {dropout.name: dropout for dropout in checked(bench, x, grad, "fp32", among)}
    seconds: Seconds = defaultdict(list)
    for order in rounds(list(field), most_rounds, bench.budget):
        for name in order:
            with field[name].within():
                _host_turn(field[name], x, grad, seconds)
    for name in field:
        medians = {
            phase: 1e6 * statistics.median(times) for (of, phase), times in seconds.items() if of == name
        }
        bench.row(
            "host_cost",
            contender=name,
            **{f"{phase}_us": value for phase, value in medians.items()},
            **ratio_cells(seconds[BASELINE, BOTH], seconds[name, BOTH], "times_nn_dropout"),
        )
    bench.note(
        f"host cost: wall time of one dropout of {_ELEMENTS} elements in a chain of {_CHAIN}; the columns "
        "with host are without the wait for the device at the end"
    )


def _host_turn(dropout: TimedDropout, x: Tensor, grad: Tensor, seconds: Seconds) -> None:
    chains: list[Tensor] = []

    def forward() -> None:
        y = x
        for _ in range(_CHAIN):
            y = dropout.contender.drop(y)
        chains.append(y)

    def backward() -> None:
        torch.autograd.grad(chains.pop(), x, grad)

    def both() -> None:
        forward()
        backward()

    both()
    calls = ((FORWARD, forward, chains.clear), (BACKWARD, backward, forward), (BOTH, both, chains.clear))
    for phase, call, prepare in calls:
        timed = wall_seconds(call, 1, x.device, prepare)
        seconds[dropout.name, phase].append(timed.seconds / _CHAIN)
        seconds[dropout.name, f"{phase}_host"].append(timed.host_seconds / _CHAIN)
