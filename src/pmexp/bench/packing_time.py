"""How long the ops of packed dropout take in a step."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from pmexp.measure.timing import seconds_now
from pmexp.packed_dropout import ops

_FORWARD = {getattr(ops, name): name for name in ("packed_dropout", "bias_dropout_add", "pack_bits")}
_BACKWARD = {getattr(ops, name): name for name in ("apply_packed_mask", "scale_packed_mask", "unpack_bits")}


class PackingTime(TorchDispatchMode):
    """A context around steps that sums the seconds inside the ops that pack and that unpack.

    `forward` is of the ops that draw, pack and scale, wherever they run (a checkpoint runs them again in
    backward), `backward` of those that unpack and scale. Seeded dropout packs nothing and is not counted.
    On CUDA the device is waited for at both ends, so that launching an op is part of its time.

    Every op of a step passes through this mode, which makes the step slower, and not the ops: they run as
    they do without it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forward = 0.0
        self.backward = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = _FORWARD.get(func) or _BACKWARD.get(func)
        if name is None:
            return func(*args, **(kwargs or {}))
        op = getattr(ops.operators_for(args[0]), name)
        start = seconds_now(args[0].device)
        result = op(*args, **(kwargs or {}))
        seconds = seconds_now(args[0].device) - start
        if func in _FORWARD:
            self.forward += seconds
        else:
            self.backward += seconds
        return result
