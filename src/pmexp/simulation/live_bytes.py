"""Counts the bytes of the storages of all live tensors, by what they are for.

A TorchDispatchMode sees every tensor that an operator makes, real or fake, and a weak reference to its
storage tells when that is freed. So the same counter measures a real step and a simulated one.
"""

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from pmexp.measure.tensor_parts import storages
from pmexp.packed_dropout import ops
from pmexp.simulation.internals import TorchDispatchMode, running_backward, tree_leaves

CATEGORIES = ("parameters", "gradients", "optimizer", "activations", "masks", "temporaries")
FROZEN = "frozen"  # parameters that do not train: a category where a model has such

# Which output of an operator is a dropout mask, or the noise that the CPU keeps in its place.
_MASK_OUTPUTS = {
    torch.ops.aten.native_dropout.default: 1,
    torch.ops.aten.bernoulli_.float: 0,
    torch.ops.aten.bitwise_xor.Tensor: 0,  # a packed mask with some of its bits flipped
    ops.packed_dropout: 1,
    ops.bias_dropout_add: 1,
    ops.native_dropout: 1,
    ops.pack_bits: 0,
}


@dataclass(frozen=True)
class Snapshot:
    """Bytes alive at one moment, by category."""

    by_category: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_category.values())


class LiveBytes(TorchDispatchMode):
    """A context that follows `live` bytes and the peak of each phase.

    Categories: what an operator makes outside of backward is an activation or a mask, also when a
    checkpointed region is computed again; what gradient formulas and the optimizer make is temporary.
    `assign` puts tensors of which more is known into their category. Scratch memory inside a kernel is not
    seen.

    Args:
        block: bytes to whose multiple an allocator rounds; CUDA's takes 512.
        shares: the share of a category's bytes that this process holds where others hold the rest. Tensors
            that the optimizer's step makes have the share of its state.
    """

    def __init__(self, block: int = 1, shares: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.block = block
        self.shares = shares or {}
        self.live = dict.fromkeys(CATEGORIES, 0)
        self.peaks: dict[str, Snapshot] = {}
        self.phase = ""
        self._updating = False
        self._total = 0
        self._highest = 0  # in this phase
        self._known: dict[int, tuple[weakref.ref[Any], int, str]] = {}

    @property
    def passing_bytes(self) -> int:
        """Bytes alive that are no weight's, no gradient's and not the optimizer's."""
        return sum(self.live[category] for category in ("activations", "masks", "temporaries"))

    def enter(self, phase: str) -> None:
        """Counts from now on for `phase`, which may have been entered before."""
        self.phase = phase
        self._highest = self.peaks[phase].total if phase in self.peaks else -1
        self._note()

    def forget_peaks(self) -> None:
        self.peaks.clear()

    def size_of(self, tensor: Tensor) -> int:
        """Returns the bytes that are counted for the storages of `tensor`."""
        return sum(self._known[id(storage)][1] for storage in storages(tensor) if id(storage) in self._known)

    def assign(self, tensors: Iterable[Tensor], category: str) -> None:
        """Puts the storages of `tensors`, known or not, into `category`."""
        for tensor in tensors:
            self._count(tensor, category, again=True)

    def follow(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Assigns parameters, complete gradients and optimizer state to their categories from now on."""
        self.assign((*module.parameters(), *module.buffers()), "parameters")
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._gradient_of)
            else:
                self.live.setdefault(FROZEN, 0)
                self.assign([parameter], FROZEN)
        optimizer.register_step_pre_hook(self._before_update)
        optimizer.register_step_post_hook(self._after_update)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = tree_leaves(result)
        mask = _MASK_OUTPUTS.get(func)
        plain = "temporaries" if self._updating or running_backward() else "activations"
        for place, value in enumerate(made):
            if isinstance(value, Tensor) and value.layout is torch.strided:
                is_mask = place == mask and not running_backward()
                self._count(value, "masks" if is_mask else plain, again=is_mask)
        return result

    def _gradient_of(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._count(parameter.grad, "gradients", again=True)

    def _before_update(self, *_: Any) -> None:
        self._updating = True

    def _after_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._updating = False
        for state in optimizer.state.values():
            self.assign((value for value in state.values() if isinstance(value, Tensor)), "optimizer")

    def _count(self, tensor: Tensor, category: str, again: bool) -> None:
        for storage in storages(tensor):
            self._count_storage(storage, category, again)

    def _count_storage(self, storage: torch.UntypedStorage, category: str, again: bool) -> None:
        key = id(storage)
        known = self._known.get(key)
        if known is not None and known[0]() is storage:
            if again:
                self._move(storage, known[0], category)
            return
        self._add(key, weakref.ref(storage, lambda _: self._free(key)), storage.nbytes(), category)
        self._note()

    def _move(self, storage: torch.UntypedStorage, reference: weakref.ref[Any], category: str) -> None:
        self._free(id(storage))
        self._add(id(storage), reference, storage.nbytes(), category)

    def _add(self, key: int, reference: weakref.ref[Any], nbytes: int, category: str) -> None:
        share = self.shares.get("optimizer" if self._updating else category, 1.0)
        size = -(-ceil(nbytes * share) // self.block) * self.block
        self._known[key] = reference, size, category
        self.live[category] += size
        self._total += size

    def _free(self, key: int) -> None:
        _, size, category = self._known.pop(key)
        self.live[category] -= size
        self._total -= size

    def _note(self) -> None:
        if self._total > self._highest:
            self._highest = self._total
            self.peaks[self.phase] = Snapshot(dict(self.live))
