"""What a process holds from step to step, in bytes: parameters, gradients and the optimizer's state.

Exact, and the same on every device. Each is counted when it is first there: parameters and gradients between
the first backward and its update, the optimizer's state behind the first update that was taken (fp16 leaves
out those that overflow). What comes and goes in a step is not in it: whole parameters that fsdp gathers,
buckets through which DeepSpeed sends gradients. DDP's buckets are: its gradients lie in them.
"""

from collections.abc import Container, Iterable

from torch import Tensor

from pmexp.measure.tensor_parts import storages

_WHY_NOT = {
    "memory/gradients_bytes": "not counted: the engine does not show where it keeps the gradient",
    "memory/optimizer_bytes": "none was found: no update was taken, or the optimizer keeps nothing",
}


def held(**categories: Iterable[Tensor]) -> dict[str, float]:
    """`memory/<category>_bytes` of each category but those that hold nothing, which `not_held` explains."""
    sizes = {f"memory/{name}_bytes": bytes_of(tensors) for name, tensors in categories.items()}
    return {name: float(size) for name, size in sizes.items() if size}


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages of `tensors`: of a sharded one (DTensor), those of this process."""
    held = (storage for tensor in tensors for storage in storages(tensor))
    return sum({storage.data_ptr(): storage.nbytes() for storage in held}.values())


def not_held(metrics: Container[str]) -> dict[str, str]:
    """For the record of a finished run: why a metric of `held` is not among its `metrics`."""
    return {name: why for name, why in _WHY_NOT.items() if name not in metrics}
