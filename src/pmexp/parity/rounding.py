"""Judges whether rounding explains a difference: both sides against the same step in float64."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pmexp.config import Part
from pmexp.parity.difference import Rounding
from pmexp.parity.lockstep import Compared
from pmexp.parity.side import Side
from pmexp.parity.watch import Name, Watch
from pmexp.training.prepared import prepare
from pmexp.training.resuming import restore

RULE = (
    "The step is computed once more in float64, from a's weights, optimizer and random numbers and with a's "
    "dropout. Rounding explains the difference where b lies from that result at most twice as far as a does, "
    "and half a unit in the last place of the largest number further; a distance is that of the element "
    "furthest away. So a fault that is smaller than the error that rounding has already made in a is not "
    "told from it. Not judged is a tensor in which a itself is further away than a quarter of the largest "
    "number: the float64 step then is another computation, mostly one with other masks."
)
_TIMES, _OTHER = 2.0, 0.25


def explain(a: Side, compared: Compared) -> None:
    """Adds to each difference whether rounding explains it, by RULE. Weights that differ before the first
    step were not computed, and rounding changes no shape: these are not judged."""
    places = [place for place in compared.of_kind.values() if place.step and place.a.shape == place.b.shape]
    if not places:
        return
    exact = exactly(a, compared.steps, [place.name for place in places])
    for place in places:
        if place.name in exact and place.a.is_floating_point() and place.b.is_floating_point():
            place.rounding = judge(place.a, place.b, exact[place.name])


def judge(a: Tensor, b: Tensor, exact: Tensor) -> Rounding:
    """Judges by RULE. All three have the same shape, `exact` is float64."""
    own, other = a.double(), b.double()
    errors = [(exact - x).abs().max().item() for x in (own, other)]
    largest = exact.abs().max().item()
    half_unit = max(torch.finfo(x.dtype).eps for x in (a, b)) / 2 * largest
    allowed = _TIMES * errors[0] + half_unit
    explained = errors[1] <= allowed if errors[0] <= _OTHER * largest else None
    return Rounding(explained, errors[0], errors[1], allowed)


def exactly(side: Side, step: int, names: Sequence[Name]) -> dict[Name, Tensor]:
    """Returns the tensors of `names` of step `step`, computed in float64 from the state that the side then
    had.

    Names that the step in float64 lacks are missing. The side's earlier steps are taken again.
    """
    again = Side(side.name, side.options)
    for _ in range(step - 1):
        again.take(lambda name, tensor: None)
    state = again.state()
    config = copy.deepcopy(side.config)
    own_kernels = (Part.flash, Part.xformers)  # which draw the masks of attention
    kept = [part for part in config.system.parts if part in own_kernels]
    config.system = replace(config.system, parts=kept, processes=1)
    training = prepare(config).training
    training.module.double()
    restore(training, state)
    training.module.register_forward_pre_hook(_doubled, with_kwargs=True)
    seen: dict[Name, Tensor] = {}

    def see(name: Name, tensor: Tensor) -> None:
        if name in names:
            seen[name] = tensor.double()

    Watch(training).see = see
    with _Float64():
        next(training.steps())
    return seen


def _doubled(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(map(_double, args)), {key: _double(value) for key, value in kwargs.items()}


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


class _Float64(TorchFunctionMode):
    """Takes float64 where code asks for float32, as models do for softmax and for the loss."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        args = [torch.float64 if value is torch.float32 else value for value in args]
        given = {
            name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()
        }
        return func(*args, **given)
