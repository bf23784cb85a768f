"""Lists what a step may be given to take less memory: the parts of `predict`, each put into a fake copy."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from pmexp.errors import UserError
from pmexp.fit.budget import in_unit
from pmexp.packed_dropout import PackedDropout, replace_dropout
from pmexp.shown import counted
from pmexp.simulation.offloading import SimulatedLink
from pmexp.systems.checkpointing import checkpoint_layers
from pmexp.systems.tempo import apply_tempo
from pmexp.variants.byte_mask import ByteMaskDropout
from pmexp.variants.seeded import SeededDropout


class MemoryMethod:
    """Does nothing to one simulated step."""

    def prepare(self, model: nn.Module) -> None:
        """Changes the copy. Raises UserError where there is nothing to change."""

    def context(self) -> AbstractContextManager[object]:
        """Opens what is around each forward."""
        return nullcontext()

    def note(self) -> str:
        """Returns what the method did, once the step has run. Raises UserError where that was nothing."""
        return ""


class _Dropout(MemoryMethod):
    def __init__(self, dropout: type[nn.Dropout], **options: Any) -> None:
        self._dropout, self._options = dropout, options

    def prepare(self, model: nn.Module) -> None:
        self._model = type(model).__name__
        try:
            self._report = replace_dropout(model, self._dropout, **self._options)
        except ValueError as error:
            raise UserError(str(error)) from None

    def note(self) -> str:
        report = self._report
        if nothing := report.nothing_found(self._model):
            raise UserError(nothing)
        attention = report.attention.keys() - report.left.keys()
        reached = len(report.modules) + len(report.functions) + len(attention)
        return counted(reached, "place") + f", {len(report.left)} left" * bool(report.left)


class _Tempo(MemoryMethod):
    def prepare(self, model: nn.Module) -> None:
        self._report = apply_tempo(model)
        if not self._report.changed:
            raise UserError(f"tempo finds nothing to change in {type(model).__name__}")

    def note(self) -> str:
        return counted(len(self._report.changed), "module")


class _Checkpointing(MemoryMethod):
    def prepare(self, model: nn.Module) -> None:
        self._done = checkpointed(model)

    def note(self) -> str:
        return self._done


class _Offload(MemoryMethod):
    def __init__(self) -> None:
        self._link = SimulatedLink()

    def context(self) -> AbstractContextManager[object]:
        return self._link.offloaded()

    def note(self) -> str:
        size = self._link.copied_bytes
        return f"{in_unit(size, size, digits=3)} copied out and back"


class _Autocast(MemoryMethod):
    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def context(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", self._dtype)


EIGHT_BITS = "8bit-optimizer"
# Name -> (of each kind a step has one at most, what makes the method for one step).
_METHODS: dict[str, tuple[str, Callable[[], MemoryMethod]]] = {
    "byte-mask": ("dropout", partial(_Dropout, ByteMaskDropout)),
    "seed-only": ("dropout", partial(_Dropout, SeededDropout)),
    "packed": ("dropout", partial(_Dropout, PackedDropout)),
    "rebuilt": ("dropout", partial(_Dropout, PackedDropout, recompute=True)),
    "tempo": ("tempo", _Tempo),
    "checkpointing": ("checkpointing", _Checkpointing),
    "offload": ("offload", _Offload),
    "bf16": ("precision", partial(_Autocast, torch.bfloat16)),
    "fp16": ("precision", partial(_Autocast, torch.float16)),
    EIGHT_BITS: ("optimizer", MemoryMethod),  # the optimizer is made in its place
}
PARTS = tuple(_METHODS)


def checked(parts: Sequence[str], name: str = "parts") -> tuple[str, ...]:
    """Returns the parts. Raises UserError for an unknown one, and for two of a kind."""
    parts = known(parts, name)
    kinds = Counter(_METHODS[part][0] for part in parts)
    for kind, count in kinds.items():
        if count > 1:
            several = [part for part in parts if _METHODS[part][0] == kind]
            raise UserError(f"{name}: {' and '.join(several)} exclude each other; leave one out")
    return parts


def known(parts: Sequence[str], name: str) -> tuple[str, ...]:
    """Returns the parts, which may exclude each other. Raises UserError for what is no list of PARTS."""
    if isinstance(parts, str):
        raise UserError(f"{name}: {parts!r} is text; give a list, such as [{parts!r}]")
    if not isinstance(parts, Iterable):
        raise UserError(f"{name}: {parts!r} is no list; give one, such as ['packed']")
    listed = tuple(parts)
    for part in listed:
        if part not in PARTS:
            raise UserError(f"{name}: {part!r} is unknown; allowed are {', '.join(PARTS)}")
    return listed


def made(parts: Sequence[str]) -> list[MemoryMethod]:
    """Makes the methods of one step, in the order in which they are put in: dropout comes first."""
    return [_METHODS[part][1]() for part in PARTS if part in parts]


def with_part(parts: Sequence[str], part: str) -> tuple[str, ...]:
    """Returns the parts with `part`, which takes the place of one of its kind."""
    kind = _METHODS[part][0]
    return (*(other for other in parts if _METHODS[other][0] != kind), part)


def checkpointed(model: nn.Module) -> str:
    """Has the layers of `model` run again in backward, and returns which.

    By transformers' own switch where it has such models inside, else by timm's; else the outermost modules
    are taken that repeat in a list and have parts of their own. Raises UserError where there are none.
    """
    inside = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    if inside:
        if not inside[0].supports_gradient_checkpointing:
            raise UserError(f"{type(inside[0]).__name__} does not support checkpointing")
        checkpoint_layers(inside[0])
        return f"{type(inside[0]).__name__}'s layers"
    switch = getattr(model, "set_grad_checkpointing", None)
    if switch is not None:
        switch(True)
        return f"{type(model).__name__}'s layers"
    layers = repeated_layers(model)
    if not layers:
        raise UserError(f"{type(model).__name__} has no list of layers that repeat")
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    return ", ".join(f"{n} x {kind}" for kind, n in Counter(type(layer).__name__ for layer in layers).items())


def repeated_layers(model: nn.Module) -> list[nn.Module]:
    """The outermost modules of one class, two or more, in a list or Sequential, with parts of their own."""
    layers: list[nn.Module] = []
    for child in model.children():
        kinds = Counter(type(part) for part in child.children())
        repeat = isinstance(child, nn.ModuleList | nn.Sequential)
        for part in child.children() if repeat else ():
            composed = any(True for _ in part.children()) and any(True for _ in part.parameters())
            if kinds[type(part)] > 1 and composed:
                layers.append(part)
        if not any(part in layers for part in child.children()):
            layers += repeated_layers(child)
    return layers
