"""Square roots on the CPU as the standard wants them, correctly rounded; torch takes MKL's, off by a bit at times."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class ExactRoots(TorchFunctionMode):
    """Makes float32's `sqrt_` exact: rounding float64's once more hits the right number, which has 24 bits."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.sqrt_:
            return args[0].copy_(args[0].double().sqrt_())
        return func(*args, **(kwargs or {}))
