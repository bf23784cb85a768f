"""Compares steps of a model by the same masks: with torch's dropout, packed, and with rebuilt operands."""

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pmexp.measure.saved_for_backward import SavedForBackward
from pmexp.packed_dropout import PackedDropout, ReplacementReport, replace_dropout
from pmexp.zoo.tiny import RATE

_KEPT = 1.0 / (1.0 - RATE)  # the factor of a kept element, which torch's dropout saves on the CPU

# The bits of a float32 operand, in its bytes. The mask of a dropped input without a gradient is kept for the
# operand alone, and is too much where nobody else keeps that input.
_BITS = 1.0 / 32.0


@dataclass(frozen=True)
class Step:
    """Holds the numbers of one step, and what it saved for backward."""

    numbers: dict[str, Tensor]  # the loss, and the gradients by the names of their parameters
    saved_bytes: int
    masks: tuple[str, ...]  # names of the modules whose forward saved a mask that is not packed
    unnamed: tuple[str, ...]  # draws that the report does not name


@dataclass(frozen=True)
class Examined:
    """Holds what was found out about one model."""

    report: ReplacementReport
    stock: Step
    packed: Step
    rebuilt: Step

    def faults(self) -> list[str]:
        """Returns a line for each thing that is not as it has to be."""
        faults = []
        for name, step in {"packed": self.packed, "rebuilt": self.rebuilt}.items():
            lines = _differences(self.stock.numbers, step.numbers)
            masks = [place for place in step.masks if place not in self.report.left]
            lines += [f"{place or 'the model'} keeps a mask unpacked, and no word of it" for place in masks]
            lines += [f"a draw without a word of it: {line}" for line in step.unnamed]
            faults += [f"{name}: {line}" for line in lines]
        stock, packed, rebuilt = (each.saved_bytes for each in (self.stock, self.packed, self.rebuilt))
        if packed > stock:
            faults.append(f"packed saves {packed:,} bytes, stock {stock:,}")
        if rebuilt > packed * (1 + _BITS):
            faults.append(f"rebuilt saves {rebuilt:,} bytes, packed {packed:,}")
        return faults


def examine(model: nn.Module, inputs: Mapping[str, Any]) -> Examined:
    """Compares three steps of copies of `model`, whose rates of dropout are RATE, on `inputs`.

    Raises ValueError where stock's loss is no finite number: then nothing can be compared.
    """
    stock = step(copy.deepcopy(model), inputs)
    if not stock.numbers["loss"].isfinite():
        raise ValueError(f"its loss is {stock.numbers['loss'].item()}")
    steps, reports = [], []
    for recompute in (False, True):
        changed = copy.deepcopy(model)
        reports.append(_replaced(changed, recompute))
        steps.append(step(changed, inputs, reports[-1]))
    return Examined(reports[0], stock, *steps)


def _replaced(model: nn.Module, recompute: bool) -> ReplacementReport:
    try:
        return replace_dropout(model, PackedDropout, rng="torch", recompute=recompute)
    except ValueError as nothing:  # then the draws of a step say whether that is true
        left = {} if "no dropout is seen" in str(nothing) else {"": str(nothing)}
        return ReplacementReport(PackedDropout.__name__, "all", left=left, settled=True)


def step(model: nn.Module, inputs: Mapping[str, Any], report: ReplacementReport | None = None) -> Step:
    """Takes a step of `model` in training, with the masks of a fixed seed."""
    torch.manual_seed(7)
    random.seed(7)
    numpy.random.seed(7)
    ledger = SavedForBackward(model.train(), report)
    with ledger, _unpacked_masks(model) as masks:
        loss = loss_of(model(**inputs))
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    places = tuple(dict.fromkeys(masks))
    return Step({"loss": loss.detach(), **gradients}, ledger.total_bytes, places, tuple(ledger.unnamed))


def loss_of(output: Any) -> Tensor:
    """Returns a number that every tensor of a model's output has a part in, if it leads to parameters."""
    return torch.stack([part.abs().float().square().mean() for part in _tensors(output)]).sum()


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor) and output.requires_grad:
        yield output
    elif isinstance(output, Mapping | list | tuple):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def _differences(stock: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    if stock.keys() != other.keys():
        return [f"has gradients of other parameters: {', '.join(sorted(stock.keys() ^ other.keys()))}"]
    return [
        f"{name} differs by {(value - other[name]).abs().max():.1e}"
        for name, value in stock.items()
        if not torch.equal(value, other[name])
    ]


@contextmanager
def _unpacked_masks(model: nn.Module) -> Iterator[list[str]]:
    """Yields the names of the modules in whose forward a mask is saved unpacked, told by its values.

    What is saved goes on to the hooks that are active on entry.
    """
    pack, unpack = torch._C._autograd._top_saved_tensors_default_hooks(False)
    running, masks = [""], []

    def leave(*_: Any) -> None:
        running.pop()

    def look(tensor: Tensor) -> Any:
        if is_mask(tensor):
            masks.append(running[-1])
        return pack(tensor)

    handles = []
    for name, part in model.named_modules():
        enter = lambda *_, name=name: running.append(name)  # noqa: E731
        handles.append(part.register_forward_pre_hook(enter))
        handles.append(part.register_forward_hook(leave, always_call=True))
    try:
        with saved_tensors_hooks(look, unpack):
            yield masks
    finally:
        for handle in handles:
            handle.remove()


def is_mask(tensor: Tensor) -> bool:
    """Whether each element is 0 or the factor of one that dropout at RATE keeps, and some are the factor.

    A tensor with a gradient is no mask, but may be what was dropped: a softmax of single numbers, all 1.
    """
    if not tensor.is_floating_point() or tensor.numel() < 2 or tensor.requires_grad:
        return False
    kept = tensor == torch.tensor(_KEPT, dtype=tensor.dtype)
    return bool(kept.any() and (kept | (tensor == 0)).all())
