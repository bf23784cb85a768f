"""Holds what hooks of saved tensors keep in place of a tensor, each with get(), which returns that tensor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pmexp.packed_dropout.bit_comparison import BitComparison
from pmexp.packed_dropout.graph_views import Step
from pmexp.packed_dropout.mask_application import apply_bits, native_scale
from pmexp.packed_dropout.origins import Origin
from pmexp.packed_dropout.saved_masks import Saved, restore

# A tensor that is saved as torch saves it, its version, and OURS: somebody's own hooks may keep tuples, too.
Plain = tuple[Tensor, int, object]
OURS = object()


class Layout(NamedTuple):
    """Where a tensor lies in its storage."""

    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor) -> "Layout":
        return cls(tensor.size(), tensor.stride(), int(tensor.storage_offset()))

    def laid_out(self, tensor: Tensor) -> Tensor:
        """The same elements, lying so."""
        if tensor.stride() == self.stride:
            return tensor
        if 0 in self.stride:  # it is expanded, and each element lies there once
            once = tensor[tuple(slice(None if step else 1) for step in self.stride)]
            return Layout(once.size(), self.stride, 0).copy_of(once).expand(self.size)
        return self.copy_of(tensor)

    def copy_of(self, tensor: Tensor) -> Tensor:
        copy = torch.empty_strided(self.size, self.stride, dtype=tensor.dtype, device=tensor.device)
        return copy.copy_(tensor)

    def view(self, whole: Tensor) -> Tensor:
        """The view of a tensor of the same storage that lies so."""
        if whole.stride() == self.stride and whole.size() == self.size:
            return whole
        return whole.as_strided(self.size, self.stride, self.offset)


class Kept:
    """A tensor as it was saved, by one operation or for several.

    counter: has the versions of that tensor.
    layout: where it lay; None where it is at hand as it is.
    """

    __slots__ = ("__weakref__", "again", "counter", "layout", "left", "restore", "saved", "users", "version")

    def __init__(
        self,
        saved: Any,
        restore: Callable[[Any], Tensor],
        counter: Tensor,
        version: int,
        layout: Layout | None = None,
    ) -> None:
        self.saved, self.restore, self.layout = saved, restore, layout
        self.counter, self.version = counter, version
        self.users = self.left = 1
        self.again: Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether no other hooks have it."""
        return self.restore is restore

    def is_unchanged(self) -> bool:
        return self.counter._version == self.version

    def shared(self) -> "Kept":
        self.users = self.left = self.users + 1
        return self

    def get(self) -> Tensor:
        """Returns the tensor. A checkpoint gives it once: until all users had it, it is held."""
        if self.is_plain:
            return restore(self.saved)
        tensor = self.restore(self.saved) if self.again is None else self.again
        self.left -= 1
        if self.left:
            self.again = tensor
        else:
            self.again, self.left = None, self.users
        return tensor

    def get_as_it_lay(self) -> Tensor:
        """The same, in the layout that it had: hooks like save_on_cpu's give it back row by row."""
        tensor = self.get()
        return tensor if self.layout is None else self.layout.laid_out(tensor)


def kept_by(raw: Any) -> Kept | None:
    """What hooks of ours made of a saved tensor; None where others saved it, or it was freed.

    Raises NotImplementedError with torch 2.9, whose saved tensors cannot be read.
    """
    try:
        kept = raw.data
    except RuntimeError:  # it was freed
        return None
    except AttributeError:
        raise NotImplementedError(
            f"recompute=True and tempo read what autograd saves, which torch {torch.__version__} does not "
            "show; torch 2.10 or newer is needed"
        ) from None
    if type(kept) is tuple:
        return kept_plainly(*kept[:2]) if len(kept) == 3 and kept[2] is OURS else None
    return kept if type(kept) is Kept else None


def kept_plainly(tensor: Tensor, version: int) -> Kept:
    """A tensor that is saved as torch saves it, at a version."""
    return Kept(Saved(tensor, version), restore, tensor, version)


@dataclass(slots=True, eq=False)  # a frozen one takes twice the time
class KeptInput:
    """The input of a dropout, as something that is kept."""

    kept: Sequence[Kept]
    make: Callable[..., Tensor]
    steps: Sequence[Step]  # from what `make` returns to the input
    held: bool = False  # whether it is kept for this alone, and no operation needs it

    def get(self) -> Tensor:
        """Returns the input. Raises RuntimeError where it was changed in place since it was saved."""
        if self.held and not all(kept.is_unchanged() for kept in self.kept if kept.is_plain):
            raise RuntimeError(
                "the input of a dropout, which recompute=True keeps until backward, was modified by an "
                "inplace operation: change a copy of it, or give that dropout recompute=False"
            )
        x = self.make(*[kept.get_as_it_lay() for kept in self.kept])
        for step in self.steps:
            x = step(x)
        return x


@dataclass(slots=True, eq=False)
class Rebuilt:
    """A dropped tensor, a view or a copy of it, as what it is made of."""

    origin: Origin
    source: KeptInput
    packed: Kept
    steps: Sequence[Step]  # from the dropped tensor to the one that the saved one is a view of
    whole: Layout  # where that one lies
    layout: Layout
    comparison: BitComparison | None  # with the tensor that lies as `whole`

    def get(self) -> Tensor:
        packed = self.packed.get()
        kind = packed.device.type
        if not (torch.is_grad_enabled() or torch.is_autocast_enabled(kind)):
            return self._made(packed)  # at once, since to enter the contexts takes as long as a small mask
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            return self._made(packed)

    def _made(self, packed: Tensor) -> Tensor:
        x, p, bits = self.source.get(), self.origin.p, self.origin.bits
        y = apply_bits(x, packed, p, bits, native_scale(x, p, self.origin.rng, forward=True))
        for step in self.steps:
            y = step(y)
        whole = self.whole.laid_out(y)
        if self.comparison is not None:
            self.comparison.compare(whole)
        return self.layout.view(whole)


@dataclass(slots=True, eq=False)
class View:
    """A view of a tensor that is saved whole, since more than one operation saves it."""

    whole: Kept
    layout: Layout

    def get(self) -> Tensor:
        return self.layout.view(self.whole.get_as_it_lay())
