"""Training steps as CUDA graphs: one launch a step, so that the host's part is gone."""

import gc
import math
from collections.abc import Callable

import torch
from torch import Tensor

from pmexp.bench.gpu.workload import NO_DROPOUT, Workload

_WARM_UP = 3  # steps on a stream of their own before the capture; the first makes AdamW's state
_NEAR = 0.05  # times what other masks change of a loss
_SAME_MASKS_RELATIVE, _SECOND_RELATIVE = 1e-5, 1e-3

Step = Callable[[], Tensor]  # takes a step and gives its loss


def captured(workload: Workload, variant: str, batch: int) -> Step:
    """A step of `variant`, captured; each call replays it with new masks. On CUDA alone.

    The loss that a call gives is overwritten by the next one.
    """
    device = workload.device
    aside = torch.cuda.Stream(device)
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            workload.step(variant, batch)
    torch.cuda.current_stream(device).wait_stream(aside)
    gc.collect()  # a graph of autograd that lives still would hold on to the stream that it was made on
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = workload.step(variant, batch)

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def replay_faults(workload: Workload, variant: str, batch: int, replay: Step) -> tuple[list[str], str]:
    """What is wrong with a captured step, and the losses that say so. The weights are left as they were.

    From one state of the generator and the same weights a replay has to give an eager step's loss, and the
    next one the next, by which the update is seen; replays have to draw new masks each. An operator may
    choose another algorithm while it is captured, so losses may differ by far less than masks change them.
    """
    before = [tensor.clone() for tensor in workload.state()]

    def losses(step: Step, seed: int | None, steps: int) -> list[float]:
        for tensor, value in zip(workload.state(), before, strict=True):
            tensor.copy_(value)
        if seed is not None:
            torch.manual_seed(seed)
        return [step().item() for _ in range(steps)]

    def eager() -> Tensor:
        return workload.step(variant, batch)

    expected, (other,) = losses(eager, 1, 2), losses(eager, 2, 1)
    found, (again,) = losses(replay, 1, 2), losses(replay, None, 1)
    losses(eager, None, 0)  # puts the weights back
    near = max(_NEAR * abs(other - expected[0]), _SAME_MASKS_RELATIVE * abs(expected[0]))
    faults = []
    if not all(map(math.isfinite, found)):
        faults.append("a loss is not finite")
    if not abs(found[0] - expected[0]) <= near:
        faults.append("the first replay's loss is not that of an eager step with the same generator state")
    if not abs(found[1] - expected[1]) <= _SECOND_RELATIVE * abs(expected[1]):
        faults.append("the second replay's loss is not that of the eager steps: another update")
    if (again == found[0]) != (variant == NO_DROPOUT):
        faults.append("replays draw the same masks" if variant != NO_DROPOUT else "replays differ, undropped")
    return faults, f"eager {expected}, replayed {found}, with other masks {other} and {again}"
