"""Copies a model and a batch to fake tensors of the CPU, whatever device they are on; the originals stay.

Values of parameters are unknown, as are those of meta tensors. Those of buffers, of other tensors that a
module holds, and of the batch are known where they are small: a mask or a counter may decide what runs.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pmexp.simulation.internals import tree_leaves, tree_map_only
from pmexp.simulation.known_values import KnownValues

Batch = TypeVar("Batch")


def fake_copy(model: nn.Module, known: KnownValues) -> tuple[nn.Module, dict[int, Any]]:
    """Returns the copy of `model`, and the copies of its tensors by the id of the original.

    Call it inside fake_tensors(). What is shared stays shared; gradients are not copied.
    """
    copies: dict[int, Any] = {}
    for part in model.modules():
        for tensor in tree_leaves([part._parameters, part._buffers, _others_of(part)]):
            if isinstance(tensor, Tensor) and id(tensor) not in copies:
                copies[id(tensor)] = _fake(tensor, known)
    return copy.deepcopy(model, dict(copies)), copies


def fake_batch(batch: Batch, known: KnownValues) -> Batch:
    """Returns `batch` with a fake tensor in the place of each tensor, one for all places of the same."""
    made = {id(leaf): _fake(leaf, known) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)}
    fake: Batch = tree_map_only(Tensor, lambda tensor: made[id(tensor)], batch)
    return fake


def _others_of(module: nn.Module) -> list[Any]:
    return [
        value for name, value in vars(module).items() if name not in ("_parameters", "_buffers", "_modules")
    ]


def _fake(tensor: Tensor, known: KnownValues) -> Tensor:
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(fake, tensor.requires_grad)
    if not tensor.is_meta:
        known.know(fake, tensor)
    return fake.requires_grad_(tensor.requires_grad)
