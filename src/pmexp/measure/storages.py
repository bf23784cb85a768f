"""Finds the memory behind a tensor, also behind one that is made of others."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def storages(tensor: Tensor) -> Iterator[torch.UntypedStorage]:
    """Yields the storages of `tensor`, or of what it is made of: a quantized tensor, a shard (DTensor).

    The own storage of such a tensor has no memory, and the size that its shape would have.
    """
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor.untyped_storage()
        return
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        yield from storages(getattr(tensor, name))
