"""Looks into tensors that are made of others: quantized ones, shards (DTensor), sparse ones."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def parts_of(tensor: Tensor) -> dict[str, Tensor]:
    """Returns the tensors that `tensor` is made of, by name; none where it is a plain one."""
    if not is_traceable_wrapper_subclass(tensor):
        return {}
    parts = {name: getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]}
    return {name: part for name, part in parts.items() if isinstance(part, Tensor)}


def storages(tensor: Tensor) -> Iterator[torch.UntypedStorage]:
    """Yields the storages of `tensor`, or of what it is made of.

    A sparse tensor has no storage of its own; that of a wrapper has no memory, and the size of its shape.
    """
    parts = [*parts_of(tensor).values(), *_parts_of_sparse(tensor)]
    for part in parts:
        yield from storages(part)
    if not parts:
        yield tensor.untyped_storage()


def _parts_of_sparse(tensor: Tensor) -> tuple[Tensor, ...]:
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return ()


def taken_apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns plain tensors: for one that is made of others, these, as `name.part`; shards stay."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if hasattr(tensor, "full_tensor"):
            plain[name] = tensor
            continue
        parts = {f"{name}.{part}": value for part, value in parts_of(tensor).items()}
        plain |= taken_apart(parts) if parts else {name: tensor}
    return plain


def put_together(plain: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns what `taken_apart` was given, where `like` has tensors of the same kinds and names.

    Names that `like` does not have stay, and what `plain` does not have is missing.
    """
    apart = set(taken_apart(like))
    whole = {name: tensor for name, tensor in plain.items() if name in like or name not in apart}
    for name, tensor in like.items():
        parts = {part: f"{name}.{part}" for part in parts_of(tensor)}
        if name in whole or not parts:
            continue
        made = put_together(plain, {full: getattr(tensor, part) for part, full in parts.items()})
        if all(full in made for full in parts.values()):
            kind: Any = type(tensor)
            inner = {part: made[full] for part, full in parts.items()}
            context = kind.__tensor_flatten__(tensor)[1]
            whole[name] = kind.__tensor_unflatten__(inner, context, tensor.shape, tensor.stride())
    return whole
