"""Wraps all private or experimental parts of torch (2.13) that this package uses, under names of their use.

So a change in torch is mended in this file.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.library import Library
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = [
    "DATA_DEPENDENT",
    "TorchDispatchMode",
    "autocast_knows",
    "fake_tensors",
    "is_fake",
    "overridden_operators",
    "real_tensors",
    "running_backward",
    "tree_leaves",
    "tree_map_only",
]

# What a fake tensor raises where a model's control flow or shapes depend on values.
DATA_DEPENDENT = (DataDependentOutputException, DynamicOutputShapeException)


_TAKES_STORAGE = (
    torch.ops.aten.set_.source_Storage,
    torch.ops.aten.set_.source_Storage_storage_offset,
)


# Real ones, on every device, compute their mean or sum in a storage of all elements, which the result keeps.
_KEEPS_ALL_ELEMENTS = {
    torch.ops.aten.mse_loss.default,
    torch.ops.aten.smooth_l1_loss.default,
    torch.ops.aten.binary_cross_entropy.default,
    torch.ops.aten.soft_margin_loss.default,
}


_OF_OTHER_TYPES = (torch.float32, torch.float16)  # than torch's fake products of groups are of


class _FakeTensors(FakeTensorMode):
    """Has storages come and go as real ones do.

    torch's cache of results would keep those alive that an operator was called with, its fake losses have
    storages of one element, and it has no fake products of groups but in bf16.
    """

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._grouped_mm.default and args[0].dtype in _OF_OTHER_TYPES:
            return self._products_of_groups(*args, **(kwargs or {}))
        cached, self.cache_enabled = self.cache_enabled, self.cache_enabled and func not in _TAKES_STORAGE
        try:
            result: Any = super().dispatch(func, types, args, kwargs or {})
        finally:
            self.cache_enabled = cached
        return self._first_of_all(args) if func in _KEEPS_ALL_ELEMENTS and not result.dim() else result

    def _products_of_groups(self, a: Any, b: Any, *args: Any, **options: Any) -> Any:
        with self:
            of_bf16 = torch.ops.aten._grouped_mm(a.bfloat16(), b.bfloat16(), *args, **options)
            return of_bf16.to(a.dtype)

    def _first_of_all(self, args: Any) -> Any:
        """A tensor of one element, in a storage of as many as an element-wise result of `args` has."""
        with self:
            return args[0].new_empty(torch.broadcast_shapes(args[0].shape, args[1].shape)).as_strided((), ())


def fake_tensors() -> FakeTensorMode:
    """A context in which tensors have shapes, dtypes and storages with a size, and no memory."""
    return _FakeTensors(allow_non_fake_inputs=True)


def is_fake(tensor: torch.Tensor) -> bool:
    """Returns whether `tensor` has a shape and no elements."""
    return isinstance(tensor, FakeTensor)


def real_tensors() -> AbstractContextManager[object]:
    """A context inside fake_tensors() in which tensors are real again."""
    context: AbstractContextManager[object] = unset_fake_temporarily()
    return context


def autocast_knows(name: str) -> bool:
    """Whether autocast of the installed torch treats this operator on CUDA, as a build for CPUs knows too."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "AutocastCUDA")


@contextmanager
def overridden_operators() -> Iterator[Library]:
    """A library whose kernels for ATen's operators count until the context ends, for the whole process."""
    library = Library("aten", "IMPL")
    try:
        yield library
    finally:
        library._destroy()


def running_backward() -> bool:
    """Whether this thread runs gradient formulas; not while a checkpointed region is computed again."""
    in_backward = torch._C._current_graph_task_id() != -1
    return in_backward and torch._C._autograd._top_saved_tensors_default_hooks(False) is None
