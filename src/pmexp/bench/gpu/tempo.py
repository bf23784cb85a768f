"""Training steps of a model with Tempo and without, on a device."""

import copy
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from pmexp.bench.pairs import alternate, paired_ratio
from pmexp.bench.timing import seconds_a_call
from pmexp.measure.peak_memory import PeakMemory
from pmexp.systems.tempo import apply_tempo, what_ran


@dataclass(frozen=True)
class TempoOnAndOff:
    """What Tempo makes of a step, forward and backward without an update."""

    ms_off: float  # the median
    ms_on: float
    ratio: float  # time off over time on, the median of the pairs
    low: float  # of its 95 % interval
    high: float
    peak_bytes_off: int
    peak_bytes_on: int
    loss_off: float  # of the first steps, from equal seeds
    loss_on: float
    what_ran: dict[str, str]  # by module: what Tempo did, or why it left it


def tempo_on_and_off(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], device: torch.device, pairs: int = 10
) -> TempoOnAndOff:
    """Measures steps of `model` and of its copy under Tempo, which shares its parameters, in alternation.

    Args:
        model: on `device`, in training mode, its dropout in place: PackedDropout lets Tempo recompute the
            dropped probabilities of eager attention.
        loss: the loss of a batch, a scalar; it enters autocast where it is wanted.

    Raises an error of memory where a step has no room.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    under_tempo = copy.deepcopy(model, dict(shared))
    report = apply_tempo(under_tempo)
    peaks = {model: 0, under_tempo: 0}

    def step(module: nn.Module) -> float:
        try:
            value = loss(module)
            value.backward()
            return value.item()
        finally:
            model.zero_grad(set_to_none=True)

    def timed(module: nn.Module) -> float:
        peak = PeakMemory(device)
        seconds = seconds_a_call(lambda: step(module), 1, device)
        peaks[module] = max(peaks[module], peak.bytes())
        return seconds

    losses = []
    for module in (model, under_tempo):
        torch.manual_seed(0)
        losses.append(step(module))  # compiles kernels, too
        step(module)
    on, off = alternate(lambda: timed(under_tempo), lambda: timed(model), pairs)
    return TempoOnAndOff(
        ms_off=1e3 * statistics.median(off),
        ms_on=1e3 * statistics.median(on),
        **asdict(paired_ratio(off, on)),
        peak_bytes_off=peaks[model],
        peak_bytes_on=peaks[under_tempo],
        loss_off=losses[0],
        loss_on=losses[1],
        what_ran=what_ran(under_tempo, report),
    )
