"""Takes two trainings step by step and finds the first tensor in which they differ."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from pmexp.errors import UserError
from pmexp.parity.difference import Difference, Rounding, difference
from pmexp.parity.side import Side
from pmexp.parity.watch import Name, TensorKind
from pmexp.shown import counted


@dataclass
class Place:
    """A tensor that differs, with both its values, and in which step; step 0 is the weights that training
    begins from."""

    step: int
    name: Name
    difference: Difference
    a: Tensor
    b: Tensor
    rounding: Rounding | None = None


@dataclass
class Compared:
    """What was compared, and the first difference of each kind in the step that has one."""

    weights_before: str  # the digest of a's parameters
    steps: int = 0
    tensors: int = 0
    elements: int = 0
    first: Place | None = None
    of_kind: dict[TensorKind, Place] = field(default_factory=dict)
    differing: int = 0  # tensors of the step that has the first difference
    only_in: dict[str, list[str]] = field(default_factory=lambda: {"a": [], "b": []})

    @property
    def equal(self) -> bool:
        return self.first is None


def compare(a: Side, b: Side, steps: int) -> Compared:
    """Takes `steps` steps of both sides, or fewer where it finds a difference before.

    Raises UserError for a training of a that has fewer steps, or is dead, by which nothing would be shown.
    """
    if (most := a.training.plan.total_steps) < steps:
        raise UserError(f"steps: {steps} exceeds the {most} of this training; choose fewer, or more epochs")
    compared = Compared(a.weights_digest())
    _compare_weights(a, b, compared)
    while compared.equal and compared.steps < steps:
        compared.steps += 1
        _step(a, b, compared)
    _refuse_dead(a, compared)
    return compared


def _compare_weights(a: Side, b: Side, compared: Compared) -> None:
    theirs = dict(b.module.named_parameters())
    for path, parameter in a.module.named_parameters():
        layer, _, tensor = path.rpartition(".")
        if path in theirs:
            _see(compared, 0, Name("update", layer, tensor), parameter.detach(), theirs[path].detach())


def _step(a: Side, b: Side, compared: Compared) -> None:
    kept: dict[Name, Tensor] = {}
    only_in_b: list[str] = []

    def keep(name: Name, tensor: Tensor) -> None:
        kept[name] = tensor.clone()

    def meet(name: Name, tensor: Tensor) -> None:
        if name in kept:
            _see(compared, compared.steps, name, kept.pop(name), tensor)
        else:
            only_in_b.append(str(name))

    a.take(keep)
    _refuse_numbers(a, compared.steps)
    b.take(meet)
    compared.only_in = {"a": list(map(str, kept)), "b": only_in_b}


def _see(compared: Compared, step: int, name: Name, a: Tensor, b: Tensor) -> None:
    compared.tensors += 1
    compared.elements += a.numel()
    differs = difference(a, b)
    if differs is None:
        return
    compared.differing += 1
    place = Place(step, name, differs, a, b.clone())
    compared.first = compared.first or place
    compared.of_kind.setdefault(name.kind, place)


def _refuse_numbers(a: Side, step: int) -> None:
    loss, norm = a.losses[-1], a.gradient_norms[-1]
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"a={a.options.given}: the loss is {loss} and the gradient's norm {norm} in step {step}; numbers "
            "that are not finite prove nothing, so choose a training that does not diverge"
        )
    if norm == 0:
        raise UserError(
            f"a={a.options.given}: the gradient is zero in step {step}; a model that does not learn proves "
            "nothing, so choose one that does"
        )


def _refuse_dead(a: Side, compared: Compared) -> None:
    steps = counted(compared.steps, "step")
    if not a.draws and compared.steps:
        raise UserError(
            f"a={a.options.given}: draws no random number in {steps}, so no dropout is active; "
            "give variant.p a rate above 0"
        )
    if compared.steps and a.weights_digest() == compared.weights_before:
        raise UserError(
            f"a={a.options.given}: no weight has moved in {steps}; a model that does not learn proves "
            "nothing, so choose one that does"
        )
    if len(a.losses) > 1 and len(set(a.losses)) == 1:
        raise UserError(
            f"a={a.options.given}: the loss is {a.losses[0]} in each of {steps}; a model that does not learn "
            "proves nothing, so choose one that does"
        )
