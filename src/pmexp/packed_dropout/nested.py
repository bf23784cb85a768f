"""Applies what acts on every element by itself to the values behind nested tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def apply_to_values(function: Callable[..., Tensor], input: Tensor, *args: Any, **options: Any) -> Tensor:
    """function(values, *args, **options) in the nested shape and layout of `input`, jagged or strided."""
    values = function(input.values(), *args, **options)
    if input.layout is torch.jagged:
        jagged: Any = input
        nested: Tensor = torch.nested.nested_tensor_from_jagged(
            values,
            jagged.offsets(),
            jagged.lengths(),
            jagged_dim=jagged._ragged_idx,
            min_seqlen=jagged._maybe_min_seqlen,
            max_seqlen=jagged._maybe_max_seqlen,
        )
        return nested
    sizes, strides = input._nested_tensor_size(), input._nested_tensor_strides()
    return torch._nested_view_from_buffer(values, sizes, strides, input._nested_tensor_storage_offsets())
