"""Has products keep bits where they kept a dropped tensor.

A product (a linear layer, matmul, a convolution, whatever it is) saves its operands for backward. Where one
of them is a dropped tensor, this saves what that tensor is made of: the bits of the mask, and the dropout's
input or what an operation keeps anyhow and that input is made of, such as the result of a softmax, the input
of a GELU, the factors of a gate. Backward makes the very tensor again, bit for bit, and hands it to the
operation that saved it; all else, a second derivative too, is autograd's.

Everything is found in autograd's graph. The nodes of a saved tensor lead over views and copies to a dropout,
and those of the dropout's input to the operation that made it, whose own saved tensors say what is kept. So
nothing is kept that was not kept before, but bits; and an input that perhaps nobody else keeps takes no more
than what it stands for. (Then it must not be changed in place before backward, as no input of a layer with a
weight may be; autograd's error says so.) A tensor that leads nowhere is saved as torch saves it. Tensors
without a gradient are known to no node: see followed_casts.py.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from pmexp.packed_dropout.bit_comparison import BitComparison, FirstBackward, compares_always
from pmexp.packed_dropout.graph_views import PASSED, itself, reads_otherwise
from pmexp.packed_dropout.kept import (
    OURS,
    Kept,
    KeptInput,
    Layout,
    Plain,
    Rebuilt,
    View,
    kept_by,
    kept_plainly,
)
from pmexp.packed_dropout.origins import (
    CPP_NODE,
    DROPOUTS,
    Origin,
    Trace,
    trace_of,
    version_counter,
)
from pmexp.packed_dropout.saved_masks import Saved, restore, save
from pmexp.packed_dropout.saved_whole import is_of_torch, why_not_followed, why_without_source
from pmexp.packed_dropout.sources import source_in_graph


@contextmanager
def rebuilding(first: FirstBackward | None = None) -> Iterator[None]:
    """Opens a context around a forward, in which dropped tensors are saved as what they are made of.

    Other hooks that are active on entry (of a checkpoint, of save_on_cpu) get what is saved in their turn.

    first: of the model whose forward it is; contexts within this one share it.
    """
    before = _FIRST.set(first or _FIRST.get())
    active = torch._C._autograd._top_saved_tensors_default_hooks(False)
    hooks = _Hooks(*active) if active else _OutermostHooks(save, restore)
    try:
        with saved_tensors_hooks(hooks.pack, hooks.unpack):
            yield
    except RuntimeError as error:
        if "saved tensor hooks" in str(error):  # torch says so of transforms that begin inside
            error.add_note("These are the hooks of recompute=True: replace the dropout with recompute=False.")
        raise
    finally:
        _FIRST.reset(before)


_FIRST: ContextVar[FirstBackward | None] = ContextVar("FIRST", default=None)


@contextmanager
def watching(
    note: Callable[[Origin], None], note_whole: Callable[[str], None] = lambda why: None
) -> Iterator[None]:
    """Opens a context in which `note` is called for each saved tensor that will be made again.

    note_whole: called for each dropped tensor that is saved as it is, with the reason.
    """
    before = _WATCHING.set((*_WATCHING.get(), (note, note_whole)))
    try:
        yield
    finally:
        _WATCHING.reset(before)


_Watch = tuple[Callable[[Origin], None], Callable[[str], None]]
_WATCHING: ContextVar[tuple[_Watch, ...]] = ContextVar(
    "WATCHING", default=()
)  # a thread sees its own forwards


class _Hooks:
    """A pair of hooks of saved tensors, chained to the pair that was active."""

    rebuilds_operands = True
    are_outermost = False

    def __init__(self, save: Callable[[Tensor], Any], restore: Callable[[Any], Tensor]) -> None:
        self.save, self.restore = save, restore
        self.first = _FIRST.get()
        self.compares = compares_always() or not (self.first is None or self.first.is_over)

    def pack(self, tensor: Tensor) -> "Kept | Rebuilt | View":
        if dropped := _dropped_base(tensor):
            return self._traced(tensor, *dropped)
        if _WATCHING.get() and (why := why_not_followed(tensor)):
            _note_whole(why)
        return self._keep(tensor)

    def unpack(self, saved: "Kept | Rebuilt | View") -> Tensor:
        return saved.get()

    def _traced(self, tensor: Tensor, base: Tensor, trace: Trace) -> "Kept | Rebuilt | View":
        """Saves what `base` is made of, of which `tensor` is a view or itself, if that is to be had."""
        origin = trace.origin
        bits = _bits_of(trace)
        if bits is not None and (source := source_in_graph(origin) or self._held_source(tensor, origin)):
            for note, _ in _WATCHING.get():
                note(origin)
            comparison = None
            if self.compares and not origin.flip_rate:
                comparison = BitComparison.with_what(base, self.first)
            packed = bits.shared() if isinstance(bits, Kept) else self._keep(bits)
            whole = Layout.of(base)
            layout = whole if tensor is base else Layout.of(tensor)
            return Rebuilt(origin, source, packed, trace.steps, whole, layout, comparison)
        is_cast = len(trace.steps) == 1
        if is_cast and (known := self._saved_cast(tensor, base, origin)):
            return known
        if _WATCHING.get():
            _note_whole(why_without_source(tensor, origin))
        return self._cast_once(tensor, base, origin) if is_cast else self._keep(tensor)

    def _keep(self, tensor: Tensor) -> Kept:
        saved = self.save(tensor)
        if self.restore is restore:
            return Kept(saved, restore, saved.tensor, tensor._version)
        lies_so = type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.is_nested
        layout = Layout.of(tensor) if lies_so else None
        return Kept(saved, self.restore, version_counter(tensor), tensor._version, layout)

    def _cast_once(self, tensor: Tensor, base: Tensor, origin: Origin) -> View:
        """Saves the first of several casts of a dropped tensor to one dtype, as autocast makes them."""
        whole = self._keep(base)
        origin.casts = origin.casts or {}
        origin.casts[_looks(base)] = weakref.ref(whole)
        return View(whole, Layout.of(tensor))

    def _saved_cast(self, tensor: Tensor, base: Tensor, origin: Origin) -> View | None:
        known = origin.casts and origin.casts.get(_looks(base))
        whole = known() if known else None
        if whole is None or whole.restore != self.restore:
            return None
        return View(whole.shared(), Layout.of(tensor))

    def _held_source(self, tensor: Tensor, origin: Origin) -> KeptInput | None:
        """The smallest that is there and makes the input, if it is no larger than what would be saved.

        None for a dropout outside of the checkpoint that saves: what is held there in forward may be gone
        when the checkpoint runs again, which then would save another tensor in the same place.
        """
        if self.restore is not restore and origin.saver != self.save:
            return None
        chosen, most = None, tensor.untyped_storage().nbytes() + 1
        for held in origin.held():
            x = held.get()
            if x is not None and is_of_torch(x) and (size := x.untyped_storage().nbytes()) < most:
                chosen, most = (x, held.steps), size
        if chosen is None:
            return None
        x, steps = chosen
        if steps and origin.making is not None:
            origin.making.note_use()
        return KeptInput((self._keep(x),), itself, steps, held=True)


def _bits_of(trace: Trace) -> Kept | Tensor | None:
    """The bits of a dropout; None where they were freed, or other hooks have them."""
    if trace.node is None:
        return trace.packed
    if trace.origin.packed is None:
        return kept_by(trace.node._raw_saved_tensors[0])
    packed: Tensor | None = trace.origin.packed()
    return None if packed is None else kept_plainly(packed, packed._version)


def _dropped_base(tensor: Tensor) -> tuple[Tensor, Trace] | None:
    """What `tensor` is a view of, or itself, with its trace, if that is or was made of a dropped tensor."""
    base = tensor._base
    if base is None:
        base = tensor
    node: Any = base.grad_fn
    if not _kinds[type(node)].leads_on or (node is None and base.requires_grad):
        return None
    trace = trace_of(base)
    return None if trace is None or reads_otherwise(tensor, base) else (base, trace)


class _Kind(NamedTuple):
    """What the type of a node tells of a tensor that it made."""

    leads_on: bool  # it may be a dropped one
    may_be_own: bool  # it may be saved by the very node


class _Kinds(dict[type[Any], _Kind]):
    """The kinds of all types of nodes that were met."""

    def __missing__(self, node: type[Any]) -> _Kind:
        name = node.__name__
        leads_on = node is NoneType or name in DROPOUTS or name in PASSED
        saves = not leads_on and any(each.startswith("_raw_saved_") for each in dir(node))
        kind = self[node] = _Kind(leads_on, saves or name == CPP_NODE)
        return kind


_kinds = _Kinds()


class _OutermostHooks(_Hooks):
    """Hooks with none around them, which save by the shortest way what leads nowhere: nearly all."""

    are_outermost = True

    def pack(self, tensor: Tensor) -> Any:
        node: Any = tensor.grad_fn
        kind = _kinds[type(node)]
        may_be_dropped = kind.leads_on or tensor._base is not None
        if may_be_dropped and (dropped := _dropped_base(tensor)):
            return self._traced(tensor, *dropped)
        if kind.may_be_own:
            tensor = tensor.detach()  # or the node and its result keep each other alive
        if _WATCHING.get() and (why := why_not_followed(tensor)):
            _note_whole(why)
        return tensor, tensor._version, OURS

    def unpack(self, saved: "Plain | Kept | Rebuilt | View") -> Tensor:
        if type(saved) is not tuple:
            return saved.get()  # type: ignore[union-attr]
        tensor, version, _ = saved
        return tensor if tensor._version == version else restore(Saved(tensor, version))


def _looks(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.device, tensor.size(), tensor.stride()


def _note_whole(why: str) -> None:
    for _, note_whole in _WATCHING.get():
        note_whole(why)
