"""Defines pack_saved_masks(), which packs every Boolean tensor that any op saves for backward to bits.

Saved-tensor hooks see what ops save, so no module has to be replaced: dropout on CUDA, masked_fill and
where keep Boolean masks. The CPU's nn.Dropout keeps floating noise, which no hook can tell from data.
"""

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, UntypedStorage
from torch._compile import _disable_dynamo
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pmexp.packed_dropout import ops, reference


@_disable_dynamo
@contextmanager
def pack_saved_masks() -> Iterator[None]:
    """Opens a context around a forward, in which Boolean tensors saved for backward become packed bits.

    Gradients are the same bit for bit: a mask comes back with its values, shape and strides. Every other
    tensor is saved as torch saves it, and is refused in backward if it was changed in place meanwhile (a
    mask is not: its bits are a copy). Hooks that are active on entry, as save_on_cpu's, get what is
    saved in their turn, the bits in place of masks; the check for changes is then theirs.

    - A mask saved by several ops, or through several views, is packed once. An expanded one is packed as it
      lies in its storage, and one whose bits would take as many bytes as its storage is left as it is.
    - A mask that something else keeps alive, such as a buffer or the batch, is not freed by packing: its
      bits come on top, an eighth of it.
    - Like all such hooks, these are of one thread, and `torch.utils.checkpoint` puts its own inside:
      what a checkpointed region recomputes is packed only if the region enters this context itself.
    - Around a call of a compiled function the masks are packed that its graph saves. Inside one, torch
      cannot trace hooks, and the function that enters them runs uncompiled.
    """
    active = torch._C._autograd._top_saved_tensors_default_hooks(False)
    packing = _Packing(*(active or (save, restore)))
    with saved_tensors_hooks(packing.pack, packing.unpack):
        yield


@dataclass(frozen=True)
class _SavedMask:
    bits: Any  # whatever the outer hook made of the packed bits
    size: torch.Size
    stride: tuple[int, ...]


@dataclass(eq=False)
class _Packing:
    """A pair of hooks, chained to the pair that was active."""

    save: Callable[[Tensor], Any]
    restore: Callable[[Any], Tensor]
    # Maps a place in a storage to its packed bits, for as long as both are alive.
    _known: dict[Hashable, tuple[weakref.ref[UntypedStorage], weakref.ref[Tensor]]] = field(
        default_factory=dict
    )

    @_disable_dynamo
    def pack(self, tensor: Tensor) -> Any:
        if tensor.dtype is not torch.bool or not _shrinks(tensor):
            return self.save(tensor)
        return _SavedMask(self.save(self._bits(tensor)), tensor.size(), tensor.stride())

    @_disable_dynamo
    def unpack(self, saved: Any) -> Tensor:
        if not isinstance(saved, _SavedMask):
            return self.restore(saved)
        span = span_of(saved.size, saved.stride)
        bits = self.restore(saved.bits)
        stretch: Tensor = ops.operators_for(bits).unpack_bits(bits, [span], 1)
        return stretch.as_strided(saved.size, saved.stride)

    def _bits(self, mask: Tensor) -> Tensor:
        storage, span = mask.untyped_storage(), span_of(mask.size(), mask.stride())
        stream = torch.cuda.current_stream(mask.device) if mask.is_cuda else None
        place = (id(storage), mask.storage_offset(), span, mask._version, stream)
        known = self._known.get(place)
        if known and known[0]() is storage and (bits := known[1]()) is not None:
            return bits
        packed: Tensor = ops.operators_for(mask).pack_bits(mask.as_strided((span,), (1,)), 1)
        self._known[place] = weakref.ref(storage), weakref.ref(packed, lambda _: self._known.pop(place, None))
        return packed


class Saved(NamedTuple):  # which takes half the time of a dataclass that is frozen
    """Holds a tensor that autograd has saved, and its version counter at that time."""

    tensor: Tensor
    version: int


def save(tensor: Tensor) -> Saved:
    """Saves as torch does without hooks: an op's output detached, or the two keep each other alive."""
    return Saved(tensor if tensor.grad_fn is None else tensor.detach(), tensor._version)


def restore(saved: Saved) -> Tensor:
    """Returns the tensor, after the check for changes that torch makes only where there are no hooks."""
    tensor = saved.tensor
    if tensor._version != saved.version:
        raise RuntimeError(
            f"a tensor needed for the gradient ({tensor.dtype}, shape {tuple(tensor.shape)}) was modified by "
            f"an inplace operation: it is at version {tensor._version}, expected version {saved.version}"
        )
    return tensor


def _shrinks(mask: Tensor) -> bool:
    """Whether bits take less than the storage that they let go; False for a wrapper like DTensor."""
    if mask.layout is not torch.strided or is_traceable_wrapper_subclass(mask) or mask.numel() == 0:
        return False
    span = span_of(mask.size(), mask.stride())
    return reference.packed_bytes(span, 1) < mask.untyped_storage().nbytes()


def span_of(size: torch.Size, stride: tuple[int, ...]) -> int:
    """Elements of storage from the first to the last one of a strided tensor that has any."""
    return 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
