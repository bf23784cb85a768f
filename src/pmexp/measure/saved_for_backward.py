"""Keeps the ledger of what a forward pass saves for backward: exact, and the same on every device."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import RLock
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pmexp.measure.own_methods import entered, hooks_seen, own_dropouts
from pmexp.measure.precision import compiled_parts
from pmexp.measure.tensor_parts import storages
from pmexp.packed_dropout import ReplacementReport, packed_bias_dropout_add, packed_dropout
from pmexp.packed_dropout.attention import (
    as_called,
    by_math_kernel,
    drops,
    math_attention,
    multi_head_attention_forward,
)
from pmexp.packed_dropout.discovery import other_draws, unnamed_draws
from pmexp.packed_dropout.draws import Draw
from pmexp.packed_dropout.origins import Origin, rebuildable_dropout
from pmexp.packed_dropout.rebuild import watching
from pmexp.packed_dropout.recompute import packed_dropout_and_bits
from pmexp.packed_dropout.saved_masks import Saved, restore, save
from pmexp.variants.forward_unpack import forward_unpack_dropout
from pmexp.variants.seeded import seeded_dropout

_DROPOUT_CALLS = {
    *(F.dropout, torch.dropout, torch.dropout_, torch.native_dropout),
    *(torch.ops.aten.dropout, torch.ops.aten.dropout_),  # by the routes of replace_dropout
    *(packed_dropout, packed_dropout_and_bits, packed_bias_dropout_add, seeded_dropout),
    *(forward_unpack_dropout, rebuildable_dropout),
}

_ATTENTION = (F.scaled_dot_product_attention, torch.ops.aten.scaled_dot_product_attention)
_ONE_AT_A_TIME = RLock()


@dataclass
class SavedForBackward:
    """A context around one forward. It changes no number: tensors are counted and saved as they are.

    Bytes are those of distinct storages, without the parameters and buffers of `module`. A tensor saved
    while a dropout function runs is a mask (or its noise), also inside of attention that torch computes by
    its math kernel; the fused ones keep none.

    In a module that torch.compile has compiled in parts (`compiled_parts`) it counts what their graphs save,
    masks among them. No function is seen to run in a graph, so masks are not told apart there; and to watch
    for functions outside would have torch compile other graphs than those of later steps.

    It counts its own thread. A ledger in another waits until this one is closed, since it watches through
    classes that threads share.
    """

    module: nn.Module
    replacement: ReplacementReport | None = None  # what is known of its dropout
    total_bytes: int = 0
    mask_bytes: int = 0
    mask_elements: int = 0
    recomputed_products: int = 0  # operands that are dropped tensors and not saved
    saved_whole: Counter[str] = field(default_factory=Counter)  # those that are saved, by the reason
    rates: set[float] = field(default_factory=set)  # that functions of dropout were called with, but for 0
    unnamed: list[str] = field(default_factory=list)  # random numbers that `replacement` does not name
    _seen: set[int] = field(default_factory=set)
    # A freed storage's address could come again. The tensors themselves go as they would: rebuild.py looks
    # which ones somebody holds.
    _keep_alive: list[Any] = field(default_factory=list)

    def __enter__(self) -> "SavedForBackward":
        held = (*self.module.parameters(), *self.module.buffers())
        self._seen = {storage.data_ptr() for tensor in held for storage in storages(tensor)}
        self._dropout = _InsideDropout()
        self._contexts = ExitStack()
        self._contexts.enter_context(_ONE_AT_A_TIME)
        self._draws: list[Draw] = []
        if not compiled_parts(self.module):
            self._contexts.enter_context(self._dropout)
            own = own_dropouts(self.module)
            self._contexts.enter_context(entered(own, self._dropout.run_method))
            self._contexts.enter_context(hooks_seen(self._count_packed))
            self._contexts.enter_context(watching(self._count_operand, self._count_whole))
            if self.replacement:
                self._draws = self._contexts.enter_context(other_draws(self.module, self.replacement))
        hooks = torch.autograd.graph.saved_tensors_hooks(self._count, restore)
        self._contexts.enter_context(hooks)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._contexts.__exit__(kind, error, trace)
        self.mask_elements, self.rates = self._dropout.elements, self._dropout.rates
        self._keep_alive.clear()
        if self.replacement:
            self.unnamed = unnamed_draws(self._draws, self.replacement)
            self.replacement.saved_whole = dict(self.saved_whole)

    def metrics(self) -> dict[str, float]:
        """The ledger as metrics: nothing of masks where parts are compiled, and mask bytes an element only
        where dropout saved something."""
        ledger = {"memory/saved_bytes": float(self.total_bytes)}
        if compiled_parts(self.module):
            return ledger
        ledger["memory/mask_bytes"] = float(self.mask_bytes)
        if self.mask_elements:
            ledger["memory/mask_elements"] = float(self.mask_elements)
            ledger["memory/mask_bytes_per_element"] = self.mask_bytes / self.mask_elements
        if self.recomputed_products:
            ledger["memory/recomputed_products"] = float(self.recomputed_products)
        if self.saved_whole:
            ledger["memory/saved_dropped_operands"] = float(self.saved_whole.total())
        return ledger

    def _count_operand(self, _: Origin) -> None:
        self.recomputed_products += 1

    def _count_whole(self, why: str) -> None:
        self.saved_whole[why] += 1

    def _count(self, tensor: Tensor) -> Saved:
        """Counts what an op saves, and saves it as torch does: kept as it is, an op's own output would keep
        the op alive, and with it all that a forward without a backward has saved."""
        self._count_packed(tensor)
        return save(tensor)

    def _count_packed(self, kept: Any) -> None:
        """Counts a tensor, or what somebody's hook keeps in the place of one: an array or bytes."""
        parts = list(storages(kept)) if isinstance(kept, Tensor) else [kept]
        for part in parts:
            self._count_memory(part)

    def _count_memory(self, part: Any) -> None:
        """Counts the memory of a storage, an array or bytes, once for as long as the forward runs."""
        is_storage = isinstance(part, torch.UntypedStorage)
        place = part.data_ptr() if is_storage else id(part)
        if place in self._seen:
            return
        self._seen.add(place)
        self._keep_alive.append(part)
        size = part.nbytes() if is_storage else memoryview(part).nbytes
        self.total_bytes += size
        if self._dropout.depth:
            self.mask_bytes += size
            self._dropout.saved_something = True


class _InsideDropout(TorchFunctionMode):
    """Knows whether a dropout function runs, and sums the elements of those calls that saved a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.elements = 0
        self.rates: set[float] = set()
        self.saved_something = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ATTENTION:
            self.rates |= {_rate_of(func, args, kwargs)} - {0.0}
            if types or not _drops_by_math_kernel(args, kwargs):
                return func(*args, **kwargs)
            call, options = as_called(*args, **kwargs)
            with self:  # step by step, of which the dropout keeps a mask
                return math_attention(*call, **options)
        if func is F.multi_head_attention_forward and {*types} <= {Tensor}:
            with self:  # which torch's own would not ask inside of it
                return multi_head_attention_forward(*args, **kwargs)
        if func not in _DROPOUT_CALLS:
            return func(*args, **kwargs)
        self.rates |= {_rate_of(func, args, kwargs)} - {0.0}
        with self._counted(args[0] if args else kwargs["input"]):
            return func(*args, **kwargs)

    def run_method(self, method: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Calls `forward` or `drop` of somebody's dropout; what it saves is its mask."""
        if method.__name__ == "drop":
            self.rates |= {_rate_of(method, args, kwargs)} - {0.0}
        with self._counted(args[0] if args else kwargs["input"]):
            return method(module, *args, **kwargs)

    @contextmanager
    def _counted(self, input: Tensor) -> Iterator[None]:
        if self.depth:  # a dropout that calls another is one
            yield
            return
        self.depth, self.saved_something = 1, False
        try:
            yield
        finally:
            self.depth = 0
        if self.saved_something:
            self.elements += input.numel()


def _drops_by_math_kernel(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether torch would drop in its math kernel for attention with these arguments."""
    if not drops(*args, **kwargs):
        return False
    call, options = as_called(*args, **kwargs)
    return by_math_kernel(*call, **options)


def _rate_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """The rate at which a call of a function of dropout, or of attention, drops; 0 outside of training."""
    given = dict(enumerate(args))
    if func in _ATTENTION:
        return float(kwargs.get("dropout_p", given.get(4, 0.0)))
    place = 3 if func is packed_bias_dropout_add else 1
    trains = kwargs.get("training", kwargs.get("train", given.get(place + 1, True)))
    return 0.0 if trains is False else float(kwargs.get("p", given.get(place, 0.5)))
