"""replace_dropout(): puts another dropout in the place of every dropout of a model.

Modules are exchanged. Functional calls are routed (see routes.py): a module whose code calls F.dropout gets
a child, and while its forward runs F.dropout means that child.
"""

import inspect
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from pmexp.packed_dropout.call_sites import call_sites
from pmexp.packed_dropout.routes import CHILD, add_route

Place = Literal["all", "attention", "hidden"]


@dataclass
class ReplacementReport:
    """What `replace_dropout` did, by qualified module name."""

    by: str
    where: str
    modules: list[str] = field(default_factory=list)  # dropout modules exchanged
    functions: list[str] = field(default_factory=list)  # modules whose functional dropout is routed
    left: dict[str, str] = field(default_factory=dict)  # left alone: the reason

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        head = (
            f"{self.by} in place of {len(self.modules)} dropout modules and of the functional dropout "
            f"of {len(self.functions)} modules (where={self.where}); {len(self.left)} left alone"
        )
        return "\n".join([head, *(f"  {name}: {reason}" for name, reason in self.left.items())])


def replace_dropout(
    model: nn.Module, dropout: type[nn.Dropout], *, where: Place = "all", **options: Any
) -> ReplacementReport:
    """Replaces every dropout of `model` in place, keeping each one's rate.

    Args:
        model: any module tree; its training mode, parameters and state_dict keys stay.
        dropout: a subclass of nn.Dropout, made as ``dropout(p, inplace, **options)``. One with a method
            ``drop(input, p, training, inplace)`` also takes over functional calls; with nn.Dropout
            itself these stay, or become again, what they are.
        where: "attention" is dropout of attention probabilities, "hidden" every other one.

    Raises:
        ValueError: `where` is unknown, or nothing was there to replace.
    """
    if where not in get_args(Place):
        raise ValueError(f"where: {where!r} is unknown; allowed are {', '.join(get_args(Place))}")
    replacement = _Replacement(dropout, where, options, ReplacementReport(dropout.__name__, where))
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if not name.endswith(CHILD):
            replacement.route_functions_of(module, name)
            replacement.exchange_children_of(module, name)
    report = replacement.report
    if not report.modules and not report.functions:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in report.left.items())
        raise ValueError(
            f"replace_dropout(where={where!r}) found nothing to replace in {type(model).__name__}: "
            + (reasons or "it has no dropout")
        )
    return report


def recompute_attention(model: nn.Module) -> list[str]:
    """Has each packed dropout of attention probabilities do what `recompute=True` makes it do.

    Returns the qualified names of those dropouts; none where attention drops by something else, or inside a
    kernel of its own.
    """
    found = []
    for path, parent in model.named_modules():
        for name, child in parent._modules.items():
            if hasattr(child, "recompute") and _drops_probabilities(parent, name):
                child.recompute = True
                add_route(parent)  # which sees the product that follows
                found.append(f"{path}.{name}".lstrip("."))
    return found


@dataclass
class _Replacement:
    dropout: type[nn.Dropout]
    where: Place
    options: dict[str, Any]
    report: ReplacementReport
    made: dict[nn.Module, nn.Module] = field(default_factory=dict)  # a shared module stays shared

    def exchange_children_of(self, parent: nn.Module, path: str) -> None:
        rate_only = call_sites(parent).rate_only
        for name, child in list(parent._modules.items()):
            child_path = f"{path}.{name}" if path else name
            if child is None or name == CHILD or name in rate_only or child in self.made.values():
                continue  # a rate-only one is never called: its owner reads `.p` and drops by a function
            if not isinstance(child, nn.Dropout):
                self._leave(child_path, _why_left(child))
            elif self._chosen(place := "attention" if _drops_probabilities(parent, name) else "hidden"):
                if child not in self.made:
                    self.made[child] = self.dropout(child.p, child.inplace, **self.options).train(
                        child.training
                    )
                setattr(parent, name, self.made[child])
                self.report.modules.append(child_path)
                if place == "attention" and getattr(self.made[child], "recompute", False):
                    add_route(parent)  # which sees the product that follows
            else:
                self._leave(child_path, f"where={self.where}")
                add_route(child)  # shields its call of F.dropout from the route of a module around it

    def route_functions_of(self, module: nn.Module, path: str) -> None:
        sites = call_sites(module)
        if not (sites.direct or sites.eager_attention):
            return
        attention = getattr(getattr(module, "config", None), "_attn_implementation", None) or "eager"
        if not sites.direct and attention != "eager":
            self._leave(
                path, f"attention dropout lives inside the {attention} kernel; it needs eager attention"
            )
            return
        module._modules.pop(CHILD, None)
        if inspect.isgeneratorfunction(type(module).forward):
            self._leave(path, "its forward is a generator, whose steps run when no forward does")
            return
        if not hasattr(self.dropout, "drop"):
            self._leave(path, "functional calls are nn.Dropout's own")
            return
        if self._chosen("attention" if "Attention" in type(module).__name__ else "hidden"):
            module.add_module(CHILD, self.dropout(**self.options).train(module.training))
            self.report.functions.append(path)
        else:
            self._leave(path, f"where={self.where}")
        add_route(module, sites.methods)

    def _chosen(self, place: str) -> bool:
        return self.where in ("all", place)

    def _leave(self, path: str, reason: str | None) -> None:
        if reason:
            self.report.left[path] = reason


def _drops_probabilities(parent: nn.Module, name: str) -> bool:
    """Dropout of attention probabilities sits in an attention class that has no other inside, as T5's layers
    around their attention do, under a name that says nothing else."""
    if any("Attention" in type(module).__name__ for module in parent.children()):
        return False
    of_something_else = name.startswith(("resid", "out", "hidden", "proj", "pos"))
    return "Attention" in type(parent).__name__ and not of_something_else


def _why_left(module: nn.Module) -> str | None:
    kind = type(module).__name__
    if reason := getattr(module, "why_dropout_stays", None):  # a module may answer for itself
        return str(reason)
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return f"{kind} drops channels or rescales: its mask is not one bit an element"
    if "DropPath" in kind or "StochasticDepth" in kind:
        return f"{kind} drops whole samples: nothing to pack"
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase) and module.dropout > 0:
        return f"{kind} drops inside its own kernel"
    if call_sites(module).source_missing:
        return f"{kind} has no source to read: a functional dropout in it is not seen"
    return None
