"""Captures training steps as CUDA graphs: one launch a step, so that the host's part is gone."""

import gc

import torch

from pmexp.bench.gpu.same_losses import Step
from pmexp.bench.gpu.workload import Workload

_WARM_UP = 3  # steps on a stream of their own; the first makes AdamW's state


def captured(workload: Workload, variant: str, batch: int) -> Step:
    """A step of `variant`, captured; each call replays it with new masks. On CUDA alone.

    The loss that a call gives is overwritten by the next one. `workload` is capturable and steps with no
    other batch afterwards, since the graph reads this one's tokens.
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

    def replay() -> torch.Tensor:
        graph.replay()
        return loss

    return replay
