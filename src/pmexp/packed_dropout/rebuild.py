"""Has products keep bits where they kept a dropped tensor.

A product (a linear layer, matmul, a convolution, whatever it is) saves its operands for backward. Where one of
them is a dropped tensor, this saves what that tensor is made of: the mask's bits and the input of the dropout,
or what an operation keeps anyhow and the input is made of (the result of a softmax, the input of a GELU, the
factors of a gate). Backward makes the very tensor again, bit for bit, and hands it to the operation that saved it.

Both are found in autograd's own graph: a saved tensor's grad_fn leads over views and a cast to the dropout, and
the dropout's input to the operation that made it, which says by its own saved tensors what is kept. So nothing
is kept that nobody kept before, but bits, and where an input may be kept by nobody else, it is no larger than
what it stands for. What leads nowhere is saved as torch saves it.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pmexp.packed_dropout.functional import Options, apply_bits, native_scale, packed_dropout
from pmexp.packed_dropout.saved_masks import restore, save

_ORIGIN = "pmexp_origin"  # where the node of a dropout holds its Origin
_VIEWS = {
    f"{name}Backward0"
    for name in (
        *("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Transpose", "T", "Permute"),
        *("Expand", "Slice", "Select", "Split", "Unbind", "Alias", "AsStrided"),
    )
} | {"SqueezeBackward1", "TransposeBackward1", "TransposeBackward0"}
_FLAT_VIEWS = {"ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "UnsqueezeBackward0"}
_FLAT_VIEWS |= {"SqueezeBackward0", "SqueezeBackward1"}
_CAST = "ToCopyBackward0"
_DROPOUT = "_PackedDropoutBackward"


@contextmanager
def rebuilding() -> Iterator[None]:
    """Opens a context around a forward, in which dropped tensors are saved as what they are made of.

    Other hooks that are active on entry (of a checkpoint, of save_on_cpu) get what is saved in their turn.
    """
    active = torch._C._autograd._top_saved_tensors_default_hooks(False)
    hooks = _Hooks(*(active or (save, restore)))
    with saved_tensors_hooks(hooks.pack, hooks.unpack):
        yield


def rebuildable_dropout(
    input: Tensor, p: float, training: bool, inplace: bool = False, **options: Any
) -> Tensor:
    """Drops as packed_dropout does with the same arguments, so that products need not save the result."""
    node = input.grad_fn
    dropped = packed_dropout(input, p, training, inplace, **options)
    if type(dropped.grad_fn).__name__ == _DROPOUT and dropped.grad_fn is not node:
        source = None if inplace else weakref.ref(input)
        origin = Origin(source, node, Options(p, **options), _Layout.of(dropped), dropped._version)
        dropped.grad_fn.metadata[_ORIGIN] = origin
    return dropped


@contextmanager
def watching(note: Callable[["Origin"], None]) -> Iterator[None]:
    """Opens a context in which `note` is called for each saved tensor that will be made again."""
    _watching.append(note)
    try:
        yield
    finally:
        _watching.remove(note)


_watching: list[Callable[["Origin"], None]] = []


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where and how a tensor lies in its storage."""

    dtype: torch.dtype
    device: torch.device
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    is_contiguous: bool

    @classmethod
    def of(cls, tensor: Tensor) -> "_Layout":
        place = tensor.size(), tensor.stride(), tensor.storage_offset(), tensor.is_contiguous()
        return cls(tensor.dtype, tensor.device, *place)

    def view(self, whole: Tensor) -> Tensor:
        """The view of a tensor of the same storage that lies so."""
        if whole.stride() == self.stride and whole.size() == self.size:
            return whole
        return whole.as_strided(self.size, self.stride, self.offset)


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """What a dropped tensor was made of, for as long as it takes to find it again."""

    input: "weakref.ref[Tensor] | None"  # None where the dropout has written into it
    made_by: Any  # the node that made the input, or None
    options: Options
    layout: _Layout
    version: int
    casts: dict[torch.dtype, "weakref.ref[_Kept]"] = field(default_factory=dict)  # those that are saved whole


class _Kept:
    """A tensor as it was saved, by one operation or for several."""

    __slots__ = ("__weakref__", "again", "left", "restore", "saved", "users")

    def __init__(self, saved: Any, restore: Callable[[Any], Tensor]) -> None:
        self.saved, self.restore = saved, restore
        self.users = self.left = 1
        self.again: Tensor | None = None

    def shared(self) -> "_Kept":
        self.users = self.left = self.users + 1
        return self

    def get(self) -> Tensor:
        """Returns the tensor. A checkpoint gives it once: until all users had it, it is held."""
        if self.restore is restore:
            return restore(self.saved)
        tensor = self.restore(self.saved) if self.again is None else self.again
        self.left -= 1
        if self.left:
            self.again = tensor
        else:
            self.again, self.left = None, self.users
        return tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """The input of a dropout, as something that is kept."""

    kept: tuple[_Kept, ...]
    make: Callable[..., Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class _Rebuilt:
    """A dropped tensor, a view or a cast of it, as what it is made of."""

    source: _Source
    packed: _Kept
    origin: Origin
    layout: _Layout

    def get(self) -> Tensor:
        options, dropped = self.origin.options, self.origin.layout
        packed = self.packed.get()
        with torch.no_grad(), torch.autocast(packed.device.type, enabled=False):
            x = self.source.make(*(kept.get() for kept in self.source.kept))
            x = x.to(dropped.device, dropped.dtype).reshape(dropped.size)
            scale = native_scale(x, options.p, options.rng, forward=True)
            y = apply_bits(x, packed, options.p, options.bits, scale)
            if y.stride() != dropped.stride:
                y = torch.empty_strided(y.size(), dropped.stride, dtype=y.dtype, device=y.device).copy_(y)
            return self.layout.view(y.to(self.layout.device, self.layout.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """A view of a tensor that is saved whole, since more than one operation saves it."""

    whole: _Kept
    layout: _Layout

    def get(self) -> Tensor:
        return self.layout.view(self.whole.get())


class _Hooks:
    """A pair of hooks of saved tensors, chained to the pair that was active."""

    rebuilds_operands = True

    def __init__(self, save: Callable[[Tensor], Any], restore: Callable[[Any], Tensor]) -> None:
        self.save, self.restore = save, restore

    def pack(self, tensor: Tensor) -> "_Kept | _Rebuilt | _View":
        found = _origin_of(tensor)
        if found is None:
            return self._keep(tensor)
        origin, node, is_cast = found
        packed = _kept_by(node._raw_saved_tensors[0])
        source = packed and (_source_in_graph(origin) or self._input(tensor, origin))
        if packed and source:
            for note in _watching:
                note(origin)
            return _Rebuilt(source, packed.shared(), origin, _Layout.of(tensor))
        return self._cast_once(tensor, origin) if is_cast else self._keep(tensor)

    def unpack(self, saved: "_Kept | _Rebuilt | _View") -> Tensor:
        return saved.get()

    def _keep(self, tensor: Tensor) -> _Kept:
        return _Kept(self.save(tensor), self.restore)

    def _cast_once(self, tensor: Tensor, origin: Origin) -> _View:
        """Of several casts of a dropped tensor to one dtype, as autocast makes them, saves one."""
        known = origin.casts.get(tensor.dtype)
        whole = known() if known else None
        if whole is None or whole.restore != self.restore:
            whole = self._keep(tensor if tensor._base is None else tensor._base)
            origin.casts[tensor.dtype] = weakref.ref(whole)
            return _View(whole, _Layout.of(tensor))
        return _View(whole.shared(), _Layout.of(tensor))

    def _input(self, tensor: Tensor, origin: Origin) -> _Source | None:
        """The input itself, if it is there yet and no larger than what would be saved."""
        x = origin.input() if origin.input else None
        if x is None or x.untyped_storage().nbytes() > tensor.untyped_storage().nbytes():
            return None
        return _Source((self._keep(x),), _itself)


def _origin_of(tensor: Tensor) -> tuple[Origin, Any, bool] | None:
    """The origin of what `tensor` is a view or a cast of, the node of its dropout, and whether it is a cast."""
    node: Any = tensor.grad_fn
    views, is_cast = _VIEWS, False
    while (name := type(node).__name__) != _DROPOUT:
        if name == _CAST and not is_cast:
            views, is_cast = _FLAT_VIEWS, True
        elif name not in views:
            return None
        node = node.next_functions[0][0]
    origin = node.metadata.get(_ORIGIN)
    if origin is None or tensor._version != (0 if is_cast else origin.version):
        return None
    if is_cast:  # made of the whole, it lies as the whole does, and so do its views
        base = tensor if tensor._base is None else tensor._base
        if not (base.is_contiguous() and origin.layout.is_contiguous and base.numel() == _numel(origin)):
            return None
    return origin, node, is_cast


def _numel(origin: Origin) -> int:
    return origin.layout.size.numel()


def _kept_by(raw: Any) -> _Kept | None:
    """What these hooks made of a saved tensor; None where others saved it, or it was freed."""
    try:
        kept = raw.data
    except RuntimeError:
        return None
    return kept if type(kept) is _Kept else None


def _source_in_graph(origin: Origin) -> _Source | None:
    """What an operation keeps of which the dropout's input is made, by a cast and views at most."""
    node, is_cast = origin.made_by, False
    while (name := type(node).__name__) not in _MADE_OF:
        if name == _CAST and not is_cast:
            is_cast = True
        elif name not in _FLAT_VIEWS:
            return None
        node = node.next_functions[0][0]
    names, make = _MADE_OF[name]
    kept = [_kept_by(getattr(node, f"_raw_saved_{each}")) for each in names]
    if any(each is None for each in kept):
        return None
    return _Source(tuple(each.shared() for each in kept if each), make(node))


def _itself(x: Tensor) -> Tensor:
    return x


def _gelu(node: Any) -> Callable[[Tensor], Tensor]:
    approximate = node._saved_approximate
    return lambda x: F.gelu(x, approximate=approximate)


# What each operation keeps of which its result is made, and how; the result itself, where it keeps that.
_MADE_OF: dict[str, tuple[tuple[str, ...], Callable[[Any], Callable[..., Tensor]]]] = {
    "SoftmaxBackward0": (("result",), lambda _: _itself),
    "ReluBackward0": (("result",), lambda _: _itself),
    "TanhBackward0": (("result",), lambda _: _itself),
    "SigmoidBackward0": (("result",), lambda _: _itself),
    "GeluBackward0": (("self",), _gelu),
    "SiluBackward0": (("self",), lambda _: F.silu),
    "MulBackward0": (("self", "other"), lambda _: torch.mul),
}
