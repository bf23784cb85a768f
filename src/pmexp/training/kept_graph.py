"""Measures a backward that is taken twice: there packed masks are unpacked anew, or were cached."""

from statistics import median

from torch import Tensor

from pmexp.config import SHARDING, Part
from pmexp.measure.out_of_memory import is_out_of_memory
from pmexp.measure.tensor_bytes import TensorMemory
from pmexp.measure.timing import seconds_now
from pmexp.models.examples import Batch
from pmexp.training.loop import Metrics, Training

_TIMES = 3
_WITHOUT = {Part.compile, Part.offload, *SHARDING}  # what these save is gone after one backward, or is shared


def measure(training: Training, memory: TensorMemory) -> tuple[Metrics, str]:
    """`kept_graph/first_backward_ms` and `kept_graph/second_backward_ms`, medians of three, and
    `kept_graph/peak_tensor_bytes` of a forward with both, and on what; nothing, and why, where the system's
    parts keep no graph or memory does not suffice. It draws dropout masks and leaves weights as they are: it
    comes after the training, and after the peak of its memory was read.
    """
    if without := [part.name for part in training.system.config.parts if part in _WITHOUT]:
        return {}, f"not measured: no graph is kept under {' and '.join(without)}"
    batch = training.first_batch().to(training.system.device)
    try:
        with memory.block(training.held()) as taken:
            _backward_twice(training, batch)
        seconds = [_backward_twice(training, batch) for _ in range(_TIMES)]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return {}, "not measured: out of memory"
    finally:
        training.module.zero_grad(set_to_none=True)
    first, second = (1e3 * median(column) for column in zip(*seconds, strict=True))
    measured = {
        "kept_graph/first_backward_ms": first,
        "kept_graph/second_backward_ms": second,
        "kept_graph/peak_tensor_bytes": float(taken.peak),
    }
    return measured, "the first part of the first step's batch"


def _backward_twice(training: Training, batch: Batch) -> tuple[float, float]:
    """The seconds of each of two backwards through one forward."""
    training.module.zero_grad(set_to_none=True)
    training.module.train()
    loss = training.summed_loss(batch)[0] / max(1, batch.targets)
    return _seconds(loss, keep=True), _seconds(loss, keep=False)


def _seconds(loss: Tensor, keep: bool) -> float:
    start = seconds_now(loss.device)
    loss.backward(retain_graph=keep)
    return seconds_now(loss.device) - start
