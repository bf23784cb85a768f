"""Measures what one batch of an evaluation costs: time a sample, and the peak of its tensors."""

import time
from statistics import median

import torch

from pmexp.measure.memory_by_category import bytes_of
from pmexp.measure.tensor_bytes import TensorMemory
from pmexp.models.examples import Batch
from pmexp.training.loop import Metrics, Training

_TIMES = 3


@torch.no_grad()
def measure(training: Training, memory: TensorMemory) -> Metrics:
    """`inference/ms_per_sample`, the median of three forwards with their loss, and
    `inference/peak_tensor_bytes`: the model's parameters and buffers, and what one more such forward adds.

    The batch is the first one of the validation split, under the weights that `training` has. Building it is
    not timed, its way to the device is. Every rank calls it, since they share the batch.
    """
    module = training.module.eval()
    model = [*module.parameters(), *module.buffers()]
    with memory.block(model) as taken:
        rows, batch = next(training.evaluator.batches(training.val, workers=0))
        training.summed_loss(batch.to(training.system.device))
    seconds = [_forward_seconds(training, batch) for _ in range(_TIMES)]
    return {
        "inference/ms_per_sample": 1e3 * median(seconds) / len(rows),
        "inference/peak_tensor_bytes": float(taken.peak - taken.before + bytes_of(model)),
    }


def _forward_seconds(training: Training, batch: Batch) -> float:
    device = training.system.device
    start = time.perf_counter()
    training.summed_loss(batch.to(device))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
