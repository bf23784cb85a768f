"""Puts Tempo in: GELU and LayerNorm that keep what the next layer keeps, and recomputed attention dropout.

Our own implementation of Andoorveedu et al., "Tempo: Accelerating Transformer-Based Model Training through
Memory Footprint Reduction", NeurIPS 2022, with packed bits where theirs keeps bytes. Bytes an element that
are no longer saved, for elements of s bytes:

    GELU of a module            s - 1/8          its input goes, a bit comes
    LayerNorm                   s                its input and each row's mean go; as stock under autocast
    dropped attention           s                with PackedDropout and eager attention

Outputs are the stock modules', bit for bit; in eval mode so is all else. In training the gradients of GELU
and of LayerNorm are within the bounds in gelu_derivative.py and layer_norm.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from pmexp.errors import UserError
from pmexp.packed_dropout import recompute_attention
from pmexp.packed_dropout.routed_modules import ATTENTION, fused_kernel
from pmexp.shown import counted
from pmexp.systems.base import SystemPart
from pmexp.systems.tempo.gelu import InplaceGELU, backward_of, form_of, inplace_gelu
from pmexp.systems.tempo.kept_columns import ColumnSearch
from pmexp.systems.tempo.layer_norm import InplaceLayerNorm, inplace_layer_norm

__all__ = [
    "InplaceGELU",
    "InplaceLayerNorm",
    "Tempo",
    "TempoReport",
    "apply_tempo",
    "inplace_gelu",
    "inplace_layer_norm",
    "what_ran",
]

_REPORT = "_tempo_report"
_NOTHING_RECOMPUTED = (
    "no PackedDropout on attention probabilities: the variant is another one or leaves attention, the model "
    "drops none, or its attention is a kernel's own"
)


@dataclass
class TempoReport:
    """Says what `apply_tempo` did: a line for each module, by qualified name."""

    changed: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)  # the reason why a module was left, by its name

    def __str__(self) -> str:
        head = f"tempo changed {counted(len(self.changed), 'module')}; {len(self.left)} left alone"
        return "\n".join([head, *(f"  {name}: {line}" for name, line in (self.changed | self.left).items())])


class Tempo(SystemPart):
    """Puts Tempo's GELU and LayerNorm, which keep less for backward, in the place of a model's."""

    def prepare(self, module: nn.Module) -> None:
        report = apply_tempo(module)
        if not report.changed:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in report.left.items())
            raise UserError(
                f"system.parts: tempo finds nothing to change in {type(module).__name__} ({reasons}); "
                "leave it out"
            )
        vars(module)[_REPORT] = report  # `record` reads it there, whatever wraps the model by then

    def record(self, module: nn.Module) -> dict[str, str]:
        """A line for each module: what was done to it and what ran, or why it was left."""
        lines: dict[str, str] = {}
        for part in [part for part in module.modules() if _REPORT in vars(part)]:
            lines |= what_ran(part, vars(part)[_REPORT])
        return {f"tempo.{name}": line for name, line in lines.items()}


def what_ran(model: nn.Module, report: TempoReport) -> dict[str, str]:
    """A line for each module in the `report` on `model`, with what its last forward in training did."""
    lines = report.changed | {name: f"left: {reason}" for name, reason in report.left.items()}
    for name, module in model.named_modules(remove_duplicate=False):
        if name in lines and isinstance(module, InplaceLayerNorm) and module.keeps:
            lines[name] += f": {module.keeps}"
        if name in lines and isinstance(module, InplaceGELU) and module.input_was:
            lines[name] += f": {backward_of(*module.input_was)}"
        attends = f"{name}.{ATTENTION}".lstrip(".")
        if attends in lines and (kernel := fused_kernel(module)):
            lines[attends] = f"left: attention ran in the {kernel}, which keeps no probabilities"
    return lines


def apply_tempo(model: nn.Module) -> TempoReport:
    """Replaces GELU and LayerNorm modules of `model` in place and has its attention dropout recompute.

    Parameters and state_dict keys stay. A GELU that a forward calls as a function, as the head of RoBERTa's
    language model does, stays as it is, and no report names it.
    """
    report, search = TempoReport(), ColumnSearch()
    made: dict[nn.Module, nn.Module] = {}  # a shared module stays shared
    for path, parent in list(model.named_modules()):
        for name, child in list(parent._modules.items()):
            if child is None or isinstance(parent, InplaceGELU):
                continue
            child_path = f"{path}.{name}".lstrip(".")
            if reason := _why_left(child):
                report.left[child_path] = reason
            elif replacement := _replacement_of(child, search):
                line, make = replacement
                if child not in made:
                    made[child] = make(child)
                setattr(parent, name, made[child])
                report.changed[child_path] = line
    if any(isinstance(module, InplaceLayerNorm) for module in made.values()):
        search.follow(model)
    report.changed |= dict.fromkeys(recompute_attention(model), "dropped probabilities recomputed from bits")
    if not any("recomputed" in line for line in report.changed.values()):
        report.left["attention dropout"] = _NOTHING_RECOMPUTED
    return report


def _replacement_of(
    module: nn.Module, search: ColumnSearch | None = None
) -> tuple[str, Callable[[Any], nn.Module]] | None:
    """The line of the report, and what makes the replacement of `module`; None for one that has none."""
    if form := form_of(module):
        return f"in-place GELU ({form})", InplaceGELU
    if type(module) is nn.LayerNorm:
        return "in-place LayerNorm", partial(InplaceLayerNorm.like, search=search)
    return None


def _why_left(module: nn.Module) -> str | None:
    kind = type(module).__name__
    if _replacement_of(module):
        return "has hooks of its own, which a replacement would lose" if _has_hooks(module) else None
    if isinstance(module, InplaceGELU | InplaceLayerNorm):
        return None
    if "gelu" in kind.lower():
        return f"{kind} is no erf or tanh GELU"
    if isinstance(module, nn.LayerNorm) or kind.endswith("LayerNorm") or "RMSNorm" in kind:
        return f"{kind} is no plain nn.LayerNorm"
    return None


def _has_hooks(module: nn.Module) -> bool:
    every = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(every)
