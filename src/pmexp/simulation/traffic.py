"""Counts the bytes that the operators of a step read and write, which is what element-wise work costs."""

from typing import Any

from torch import Tensor

from pmexp.simulation.internals import TorchDispatchMode, tree_leaves

_COPIES_NOTHING = ("empty", "detach", "_unsafe_view")  # the last is a view that autograd takes for none


class OperatorTraffic(TorchDispatchMode):
    """A context around one step. `bytes` counts each tensor that an operator takes or makes, as a whole.

    Views cost nothing, nor do tensors that are made empty. Inside a fused attention nothing is seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = _sizes(result)
        if made and not func.is_view and not any(word in func.name() for word in _COPIES_NOTHING):
            self.bytes += sum(made) + sum(_sizes((args, kwargs)))
        return result


def _sizes(tree: Any) -> list[int]:
    return [leaf.nbytes for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
