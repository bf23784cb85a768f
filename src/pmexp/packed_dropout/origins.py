"""Remembers what a dropped tensor is made of, from its dropout to the operation that saves it.

Code may change a tensor behind autograd's back (under no_grad, through detach()) and let it go. Its node then
tells how the tensor was made, and not what it was when the next one was made of it. Versions do: of a dropped
tensor a counter stays, though the tensor goes; of others the notes of followed_casts.py.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary
from torch.utils.weak import TensorWeakRef

from pmexp.packed_dropout.functional import packed_dropout
from pmexp.packed_dropout.graph_views import COPIES, PASSED, Step, step_of
from pmexp.packed_dropout.options import Rng
from pmexp.packed_dropout.recompute import packed_dropout_and_bits
from pmexp.packed_dropout.transforms import rebuilds_outermost

# Where the metadata of a dropout's node hold its Origin; a result without a node holds a Trace.
ORIGIN = "pmexp_origin"
MADE_OF = "pmexp_made_of"  # where a tensor holds its Making, if a cheap step made it
CPP_NODE = "CppFunction"  # the type of a node in C++ that Python knows nothing of, as native calls make them
DROPOUTS = frozenset(["_PackedDropoutBackward", "_TransformablePackedDropoutBackward", CPP_NODE])
_NO_ELEMENTS = torch.empty(0)


class Operands(NamedTuple):
    """What the product that runs was called with. No other code knows of its own copies of them."""

    values: tuple[Any, ...]
    note_use: Callable[[], None]  # see Making

    def nearest(self, base: Tensor, nodes: Iterable[Any]) -> Tensor | None:
        """Returns `base` if it was handed over, else what was and is made by the first of some nodes."""
        tensors = [each for each in self.values if isinstance(each, Tensor)]
        if any(each is base or each._base is base for each in tensors):
            return base
        return next((each for node in nodes for each in tensors if each.grad_fn is node), None)


OPERANDS: ContextVar[Operands | None] = ContextVar("OPERANDS", default=None)  # where casts are followed


class _OfThisTensor:
    """What a tensor holds of its own making: a copy of it is a tensor like any other."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


class Held(NamedTuple):
    """A tensor that others hold, if they still do, and the steps that make a dropout's input of it."""

    tensor: "weakref.ref[Tensor]"
    version: int
    steps: tuple[Step, ...]

    def get(self) -> Tensor | None:
        """Returns the tensor; None where nobody holds it, or it was changed in place meanwhile."""
        tensor = self.tensor()
        return tensor if tensor is not None and tensor._version == self.version else None


@dataclass(slots=True, eq=False)  # a frozen one takes twice the time, here and below
class Making(_OfThisTensor):
    """How a cheap step made a tensor of another."""

    version: int  # the tensor's own
    source: "weakref.ref[Tensor]"
    source_version: int
    source_made_by: Any  # the node that made the source, or None
    source_making: "Making | None"
    step: Step
    note_use: Callable[[], None]  # called where a dropped tensor is made again of the source

    @classmethod
    def of(cls, tensor: Tensor) -> "Making | None":
        making: Making | None = getattr(tensor, MADE_OF, None)
        return making if making is not None and making.version == tensor._version else None

    def leads_to(self, node: Any, version: int) -> bool:
        """Whether known steps made the tensor of what `node` made, when that was at `version`."""
        making: Making | None = self
        while making is not None and making.source_made_by is not node:
            making = making.source_making
        if making is None or making.source_version != version:
            return False
        self.note_use()
        return True

    def sources(self) -> list[Held]:
        """Returns what the tensor can be made of, the nearest first."""
        steps: tuple[Step, ...] = ()
        sources = []
        making: Making | None = self
        while making is not None:
            steps = (making.step, *steps)
            sources.append(Held(making.source, making.source_version, steps))
            making = making.source_making
        return sources


@dataclass(slots=True, eq=False)
class Origin:
    """What a dropped tensor was made of."""

    input: "weakref.ref[Tensor] | None"  # None where the dropout has written into it
    input_version: int
    made_by: Any  # the node that made the input, or None
    making: Making | None  # the input's
    counter: Tensor  # the dropped tensor's, see version_counter
    version: int  # the dropped tensor had it
    elements: int
    p: float
    bits: int
    rng: Rng
    flip_rate: float
    saver: Any  # what saved tensors where the dropout ran, see saver_now
    packed: TensorWeakRef | None = None  # the bits, where the node saves them past all hooks
    casts: dict[Any, Any] | None = None  # those that are saved whole, by their dtype, device and layout

    def held(self) -> list[Held]:
        """Returns the input and what it can be made of by cheap steps, the nearest first."""
        input = [] if self.input is None else [Held(self.input, self.input_version, ())]
        return input if self.making is None else [*input, *self.making.sources()]

    def is_unchanged(self) -> bool:
        """Whether the dropped tensor is as it was dropped, or was so until it was let go."""
        return self.counter._version == self.version


def saver_now() -> Any:
    """Returns what gets the tensors that autograd saves, behind hooks of rebuild.py; None without hooks.

    Each run of a checkpointed region, in forward and again in backward, has one of its own.
    """
    top: Any = torch._C._autograd._top_saved_tensors_default_hooks(False)
    if top is None:
        return None
    hooks: Any = getattr(top[0], "__self__", None)
    return hooks.save if getattr(hooks, "rebuilds_operands", False) else top[0]


def version_counter(tensor: Tensor) -> Tensor:
    """Returns a tensor without elements that has the version of `tensor` and its views, and outlives them."""
    counter = tensor.detach()
    is_dense = type(tensor) is Tensor and not tensor.is_meta
    counter.data = _NO_ELEMENTS if is_dense else tensor.new_empty(0)
    return counter


@dataclass(slots=True, eq=False)
class Trace(_OfThisTensor):
    """How a tensor was made of a dropped one."""

    origin: Origin
    node: Any  # the dropout's, or None where it has none
    packed: Tensor | None  # the bits, where there is no node
    steps: Sequence[Step]
    version: int  # the tensor that was made had it


def rebuildable_dropout(
    input: Tensor, p: float, training: bool, inplace: bool = False, **options: Any
) -> Tensor:
    """Drops as packed_dropout does with the same arguments, so that products need not save the result."""
    if has_torch_function_unary(input):  # a mode would be called for each attribute of a tensor below
        return handle_torch_function(rebuildable_dropout, (input,), input, p, training, inplace, **options)
    if input.is_inference():  # has no version, by which a change of it would be seen
        return packed_dropout(input, p, training, inplace, **options)
    made_by, version = input.grad_fn, input._version
    packed = None
    if not inplace and rebuilds_outermost():
        dropped, packed = _dropped_past_hooks(input, float(p), training, options)
    elif not (inplace or input.requires_grad):
        dropped, packed = packed_dropout_and_bits(input, float(p), training, **options)
    else:
        dropped = packed_dropout(input, p, training, inplace, **options)
    node: Any = dropped.grad_fn
    if packed is not None and node is None:
        # The weight behind it may have a gradient, and saves the result.
        origin = _origin(input, None, version, dropped, p, options)
        setattr(dropped, ORIGIN, Trace(origin, None, packed, (), dropped._version))
    elif node is not made_by and type(node).__name__ in DROPOUTS:
        origin = _origin(input, made_by, version, dropped, p, options)
        origin.packed = None if packed is None else TensorWeakRef(packed)
        node.metadata[ORIGIN] = origin
    return dropped


def _dropped_past_hooks(
    input: Tensor, p: float, training: bool, options: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """packed_dropout_and_bits(), whose node saves the bits as it would without hooks: so C++ may make it."""
    hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks(False)
    try:  # an interrupt behind the next call finds the hooks gone, and has to put them back
        torch._C._autograd._pop_saved_tensors_default_hooks()
        return packed_dropout_and_bits(input, p, training, **options)
    finally:
        torch._C._autograd._push_saved_tensors_default_hooks(*hooks)


def origin_of(node: Any) -> Origin | None:
    """Returns what the result of a node was made of, if the node is that of such a dropout."""
    return node.metadata.get(ORIGIN) if type(node).__name__ in DROPOUTS else None


def _origin(
    input: Tensor, made_by: Any, version: int, dropped: Tensor, p: float, options: dict[str, Any]
) -> Origin:
    if input is dropped:  # it was written into
        reference, making = None, None
    else:
        reference, making = weakref.ref(input), Making.of(input)
    drawn = float(p), options["bits"], options["rng"], options["flip_rate"]
    counter = version_counter(dropped)
    seen, elements = dropped._version, dropped.numel()
    return Origin(reference, version, made_by, making, counter, seen, elements, *drawn, saver=saver_now())


def trace_of(base: Tensor) -> Trace | None:
    """Finds the dropped tensor that `base`, which is no view, is or was made of by views and copies."""
    node: Any = base.grad_fn
    if node is None:
        return constant_trace_of(base)
    nodes: list[Any] = []
    copies = 0
    while (name := type(node).__name__) in PASSED:
        nodes.append(node)
        copies += name in COPIES
        node = node.next_functions[0][0]
    if (origin := origin_of(node)) is None:
        return None
    if base._version != (0 if nodes else origin.version) or not origin.is_unchanged():
        return None
    if copies > 1 and not _copied_unchanged(base, nodes, node, origin):
        return None
    return Trace(origin, node, None, [step_of(each) for each in reversed(nodes)], base._version)


def _copied_unchanged(base: Tensor, nodes: Sequence[Any], dropout: Any, origin: Origin) -> bool:
    """Whether `base`, the last of several copies, is known to be made of copies that nothing changed."""
    operands = OPERANDS.get()
    operand = operands.nearest(base, (*nodes, dropout)) if operands else base
    if operands and operand is not None and operand.grad_fn is dropout:
        operands.note_use()
        return True
    making = None if operand is None else Making.of(operand)
    return making is not None and making.leads_to(dropout, origin.version)


def constant_trace_of(base: Tensor) -> Trace | None:
    """The same for a tensor without a gradient, of which no node knows."""
    trace: Trace | None = getattr(base, ORIGIN, None)
    if trace is None or trace.version != base._version or not trace.origin.is_unchanged():
        return None
    return trace
