"""Has products keep bits where they kept a dropped tensor.

A product (a linear layer, matmul, a convolution, whatever it is) saves its operands for backward. Where one
of them is a dropped tensor, this saves what that tensor is made of: the bits of the mask, and the dropout's
input or what an operation keeps anyhow and that input is made of, such as the result of a softmax, the input
of a GELU, the factors of a gate. Backward makes the very tensor again, bit for bit, and hands it to the
operation that saved it; all else, a second derivative too, is autograd's.

Everything is found in autograd's graph. The nodes of a saved tensor lead over views and a cast to a dropout,
and those of the dropout's input to the operation that made it, whose own saved tensors say what is kept. So
nothing is kept that was not kept before, but bits; and an input that perhaps nobody else keeps takes no more
than what it stands for. (Then it must not be changed in place before backward, as no input of a layer with a
weight may be; autograd's error says so.) A tensor that leads nowhere is saved as torch saves it.
"""

import weakref
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pmexp.packed_dropout.functional import Options, apply_bits, native_scale, packed_dropout
from pmexp.packed_dropout.graph_views import COPIES, UNSAFE_VIEW, VIEWS, Step, steps_of
from pmexp.packed_dropout.recompute import packed_dropout_and_bits
from pmexp.packed_dropout.saved_masks import Saved, restore, save
from pmexp.packed_dropout.saved_whole import why_not_followed, why_without_source

_ORIGIN = "pmexp_origin"  # where the node of a dropout holds its Origin; its result, where it has no node
_DROPOUT = "_PackedDropoutBackward"
_LEADS_ON = frozenset([_DROPOUT, *COPIES, *VIEWS])  # nodes of which a tensor may be a dropped one
_leads_on: dict[type, bool] = {}  # by the type of a node, whether a tensor made by it or a view may be one


@contextmanager
def rebuilding() -> Iterator[None]:
    """Opens a context around a forward, in which dropped tensors are saved as what they are made of.

    Other hooks that are active on entry (of a checkpoint, of save_on_cpu) get what is saved in their turn.
    """
    active = torch._C._autograd._top_saved_tensors_default_hooks(False)
    hooks = _Hooks(*active) if active else _OutermostHooks(save, restore)
    with saved_tensors_hooks(hooks.pack, hooks.unpack):
        yield


def rebuildable_dropout(
    input: Tensor, p: float, training: bool, inplace: bool = False, **options: Any
) -> Tensor:
    """Drops as packed_dropout does with the same arguments, so that products need not save the result."""
    if not (input.requires_grad or inplace):
        return _dropped_constant(input, p, training, **options)
    made_by = input.grad_fn
    dropped = packed_dropout(input, p, training, inplace, **options)
    node: Any = dropped.grad_fn
    if type(node).__name__ == _DROPOUT and node is not made_by:
        source = None if inplace else weakref.ref(input)
        layout = _Layout.of(dropped)
        node.metadata[_ORIGIN] = Origin(source, made_by, Options(p, **options), layout, dropped._version)
    return dropped


def _dropped_constant(input: Tensor, p: float, training: bool, **options: Any) -> Tensor:
    """Drops an input without a gradient: the weight behind it may have one, and saves the result."""
    p = float(p)
    dropped, packed = packed_dropout_and_bits(input, p, training, **options)
    if packed is not None:
        layout = _Layout.of(dropped)
        origin = Origin(weakref.ref(input), None, Options(p, **options), layout, dropped._version, packed)
        setattr(dropped, _ORIGIN, origin)
    return dropped


@contextmanager
def watching(
    note: Callable[["Origin"], None], note_whole: Callable[[str], None] = lambda why: None
) -> Iterator[None]:
    """Opens a context in which `note` is called for each saved tensor that will be made again.

    note_whole: called for each dropped tensor that is saved as it is, with the reason.
    """
    watch = note, note_whole
    _watching.append(watch)
    try:
        yield
    finally:
        _watching.remove(watch)


_watching: list[tuple[Callable[["Origin"], None], Callable[[str], None]]] = []


class _Layout(NamedTuple):
    """Where and how a tensor lies in its storage."""

    dtype: torch.dtype
    device: torch.device
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    is_contiguous: bool

    @classmethod
    def of(cls, tensor: Tensor) -> "_Layout":
        offset = int(tensor.storage_offset())
        place = tensor.size(), tensor.stride(), offset, tensor.is_contiguous()
        return cls(tensor.dtype, tensor.device, *place)

    def laid_out(self, tensor: Tensor) -> Tensor:
        """The same elements, lying so."""
        if tensor.stride() == self.stride:
            return tensor
        copy = torch.empty_strided(self.size, self.stride, dtype=tensor.dtype, device=tensor.device)
        return copy.copy_(tensor)

    def view(self, whole: Tensor) -> Tensor:
        """The view of a tensor of the same storage that lies so."""
        if whole.stride() == self.stride and whole.size() == self.size:
            return whole
        return whole.as_strided(self.size, self.stride, self.offset)


@dataclass(slots=True, eq=False)  # a frozen one takes twice the time, here and below
class Origin:
    """What a dropped tensor was made of, for as long as it takes to find it again."""

    input: "weakref.ref[Tensor] | None"  # None where the dropout has written into it
    made_by: Any  # the node that made the input, or None
    options: Options
    layout: _Layout
    version: int
    packed: Tensor | None = None  # the bits, where no node holds them
    casts: dict[torch.dtype, "weakref.ref[_Kept]"] = field(default_factory=dict)  # those that are saved whole

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of a tensor that has one is a tensor like any other."""
        return type(None), ()


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


@dataclass(slots=True, eq=False)
class _Source:
    """The input of a dropout, as something that is kept."""

    kept: tuple[_Kept, ...]
    make: Callable[..., Tensor]


@dataclass(slots=True, eq=False)
class _Rebuilt:
    """A dropped tensor, a view or a cast of it, as what it is made of."""

    source: _Source
    packed: _Kept
    trace: "_Trace"
    layout: _Layout

    def get(self) -> Tensor:
        packed = self.packed.get()
        kind = packed.device.type
        if not (torch.is_grad_enabled() or torch.is_autocast_enabled(kind)):
            return self._made(packed)  # at once, since to enter the contexts takes as long as a small mask
        with torch.no_grad(), torch.autocast(kind, enabled=False):
            return self._made(packed)

    def _made(self, packed: Tensor) -> Tensor:
        options = self.trace.origin.options
        x = self.source.make(*[kept.get() for kept in self.source.kept])
        scale = native_scale(x, options.p, options.rng, forward=True)
        y = apply_bits(x, packed, options.p, options.bits, scale)
        for step in self.trace.steps:
            y = step(y)
        return self.layout.view(self.trace.whole.laid_out(y))


@dataclass(slots=True, eq=False)
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
        node = tensor.grad_fn
        if node is None:
            trace = None if tensor.requires_grad else _origin_held_by(tensor)
        else:
            trace = _origin_of(tensor) if type(node).__name__ in _LEADS_ON else None
        if trace is None:
            if _watching and (why := why_not_followed(tensor, _DROPOUT, _ORIGIN)):
                _note_whole(why)
            return self._keep(tensor)
        bits = trace.origin.packed if node is None else _kept_by(trace.node._raw_saved_tensors[0])
        if bits is not None and (
            source := _source_in_graph(trace.origin) or self._input(tensor, trace.origin)
        ):
            for note, _ in _watching:
                note(trace.origin)
            packed = bits.shared() if isinstance(bits, _Kept) else self._keep(bits)
            return _Rebuilt(source, packed, trace, _Layout.of(tensor))
        if trace.is_only_cast and (known := self._saved_cast(tensor, trace.origin)):
            return known
        if _watching:
            _note_whole(why_without_source(tensor, trace.origin.input))
        return self._cast_once(tensor, trace.origin) if trace.is_only_cast else self._keep(tensor)

    def unpack(self, saved: "_Kept | _Rebuilt | _View") -> Tensor:
        return saved.get()

    def _keep(self, tensor: Tensor) -> _Kept:
        return _Kept(self.save(tensor), self.restore)

    def _cast_once(self, tensor: Tensor, origin: Origin) -> _View:
        """Saves the first of several casts of a dropped tensor to one dtype, as autocast makes them."""
        whole = self._keep(tensor if tensor._base is None else tensor._base)
        origin.casts[tensor.dtype] = weakref.ref(whole)
        return _View(whole, _Layout.of(tensor))

    def _saved_cast(self, tensor: Tensor, origin: Origin) -> _View | None:
        known = origin.casts.get(tensor.dtype)
        whole = known() if known else None
        if whole is None or whole.restore != self.restore:
            return None
        return _View(whole.shared(), _Layout.of(tensor))

    def _input(self, tensor: Tensor, origin: Origin) -> _Source | None:
        """The input itself, if it is there yet and no larger than what would be saved."""
        x = origin.input() if origin.input else None
        if x is None or x.untyped_storage().nbytes() > tensor.untyped_storage().nbytes():
            return None
        return _Source((self._keep(x),), _itself)


class _Plain(NamedTuple):
    """A tensor that is saved as torch saves it, at its version."""

    tensor: Tensor
    version: int


class _OutermostHooks(_Hooks):
    """Hooks with none around them, which save by the shortest way what leads nowhere: nearly all."""

    def pack(self, tensor: Tensor) -> Any:
        base = tensor._base
        node = tensor.grad_fn if base is None else base.grad_fn  # where all views of a tensor lead to
        leads = _leads_on.get(type(node))
        if leads is None:
            leads = _leads_on[type(node)] = type(node).__name__ in _LEADS_ON
        if leads or _watching or not tensor.requires_grad:
            return super().pack(tensor)
        # Not the result of an operation itself, or the two keep each other alive.
        return _Plain(tensor if tensor.is_leaf else tensor.detach(), tensor._version)

    def unpack(self, saved: Any) -> Tensor:
        if type(saved) is not _Plain:
            return super().unpack(saved)
        return saved[0] if saved[0]._version == saved[1] else restore(Saved(*saved))


def _note_whole(why: str) -> None:
    for _, note in _watching:
        note(why)


def _origin_held_by(tensor: Tensor) -> "_Trace | None":
    """Finds the dropped tensor without a gradient that `tensor` is, or is a view of."""
    origin = getattr(tensor if tensor._base is None else tensor._base, _ORIGIN, None)
    if origin is None or tensor._version != origin.version:
        return None
    return _Trace(origin, None, [], origin.layout)


def _origin_of(tensor: Tensor) -> "_Trace | None":
    """Finds the dropped tensor that `tensor` is made of by views, copies and a cast."""
    path = _path(tensor.grad_fn, (_DROPOUT,))
    if path is None:
        return None
    nodes, node = path
    copy = next(
        (place for place, each in enumerate(nodes) if type(each).__name__ in COPIES), None
    )  # the last
    origin = node.metadata.get(_ORIGIN)
    if origin is None or tensor._version != (origin.version if copy is None else 0):
        return None
    if copy is None:
        return _Trace(origin, node, [], origin.layout)
    base = tensor if tensor._base is None else tensor._base
    # A view of the copy that autograd does not follow, as a linear layer takes, is a base of its own.
    copy = next(
        (place for place, each in enumerate(nodes[:copy]) if type(each).__name__ == UNSAFE_VIEW), copy
    )
    steps = steps_of(nodes[copy:], base.size(), base.dtype, base.device)
    return None if steps is None else _Trace(origin, node, steps, _Layout.of(base))


@dataclass(slots=True, eq=False)
class _Trace:
    """Where a saved tensor comes from."""

    origin: Origin
    node: Any  # its dropout's, or None
    steps: list[Step]  # which make of the dropped tensor the copy that the saved one is a view of
    whole: _Layout  # where that copy lies, or the dropped tensor itself

    @property
    def is_only_cast(self) -> bool:
        """Whether the copy has the dropped tensor's elements in their order, in another dtype."""
        same = self.origin.layout.is_contiguous and self.whole.is_contiguous
        return self.whole.dtype != self.origin.layout.dtype and same and len(self.steps) == 1


def _path(node: Any, ends: Container[str]) -> tuple[list[Any], Any] | None:
    """The nodes of views and copies from `node` on, and the one behind them, which has a name of `ends`."""
    nodes: list[Any] = []
    while (name := type(node).__name__) not in ends:
        if not (name in COPIES or name in VIEWS):
            return None
        nodes.append(node)
        node = node.next_functions[0][0]
    return nodes, node


def _kept_by(raw: Any) -> _Kept | None:
    """What these hooks made of a saved tensor; None where others saved it, or it was freed."""
    try:
        kept = raw.data
    except RuntimeError:
        return None
    if type(kept) is _Plain:
        return _Kept(Saved(*kept), restore)
    return kept if type(kept) is _Kept else None


def _source_in_graph(origin: Origin) -> _Source | None:
    """Finds what an operation keeps of which the dropout's input is made by views, copies and a cast."""
    path = _path(origin.made_by, _MADE_OF)
    if path is None:
        return None
    nodes, node = path
    steps = steps_of(nodes, origin.layout.size, origin.layout.dtype, origin.layout.device)
    names, make = _MADE_OF[type(node).__name__]
    kept = [_kept_by(getattr(node, f"_raw_saved_{each}")) for each in names]
    if steps is None or any(each is None for each in kept):
        return None
    return _Source(tuple(each.shared() for each in kept if each), _chained(make(node), steps))


def _chained(make: Callable[..., Tensor], steps: list[Step]) -> Callable[..., Tensor]:
    return reduce(lambda function, step: lambda *x: step(function(*x)), steps, make)


def _itself(x: Tensor) -> Tensor:
    return x


def _gelu(node: Any) -> Callable[[Tensor], Tensor]:
    approximate = node._saved_approximate
    return lambda x: F.gelu(x, approximate=approximate)


# What each operation keeps of which its result is made, and how; the result itself, where it keeps that.
_MADE_OF: dict[str, tuple[tuple[str, ...], Callable[[Any], Callable[..., Tensor]]]] = {
    "SoftmaxBackward0": (("result",), lambda _: _itself),
    "SafeSoftmaxBackward0": (("result",), lambda _: _itself),
    "ReluBackward0": (("result",), lambda _: _itself),
    "TanhBackward0": (("result",), lambda _: _itself),
    "SigmoidBackward0": (("result",), lambda _: _itself),
    "GeluBackward0": (("self",), _gelu),
    "SiluBackward0": (("self",), lambda _: F.silu),
    "MulBackward0": (("self", "other"), lambda _: torch.mul),
}
