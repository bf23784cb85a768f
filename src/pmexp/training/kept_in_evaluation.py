"""Sees whether an evaluation leaves a model's weights as they were: scores are else those of others."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pmexp.shown import counted, first_five

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes an element


@contextmanager
def weights_watched(module: nn.Module, watched: bool) -> Iterator[list[str]]:
    """Yields a list that afterwards says which weights and buffers of `module` have changed inside, if any
    have. Only plain tensors tell: shards and quantized ones are put together as an engine likes.

    watched: whether to look at all, which takes two sums over each tensor.
    """
    said: list[str] = []
    before = _sums(module) if watched else {}
    yield said
    after = _sums(module) if watched else {}
    names = [name for name, value in before.items() if after.get(name, value) != value]
    if names:
        said.append(
            f"the first evaluation changes {counted(len(names), 'weight')} of the model: "
            f"{first_five(names)}; scores then depend on how often it is evaluated; "
            "change them in training alone"
        )


@torch.no_grad()
def _sums(module: nn.Module) -> dict[str, int]:
    """Returns a sum over the bits of each parameter and persistent buffer, by name."""
    tensors = {
        name: each
        for name, each in module.state_dict().items()
        if isinstance(each, Tensor) and _is_plain(each)
    }
    sums = [each.view(_INTEGERS[each.element_size()]).sum(dtype=torch.int64) for each in tensors.values()]
    return dict(zip(tensors, map(int, sums), strict=True))


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and tensor.element_size() in _INTEGERS
    )
