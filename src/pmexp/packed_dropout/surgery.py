"""Defines replace_dropout(), which puts another dropout in the place of every dropout of a model.

Modules are exchanged. Functional calls are routed (see routes.py): a module whose code calls F.dropout gets
a dropout, and while its forward runs F.dropout means that one.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import nn

from pmexp.packed_dropout.attention import AttentionDropout
from pmexp.packed_dropout.attention_choice import (
    attention_of,
    notice_another_attention,
    why_attention_stays,
)
from pmexp.packed_dropout.bit_comparison import FirstBackward
from pmexp.packed_dropout.call_sites import call_sites
from pmexp.packed_dropout.discovery import Discovery, drops_probabilities, place_of_functions
from pmexp.packed_dropout.dry_run import run_dry
from pmexp.packed_dropout.exchange import exchanged, why_it_stays
from pmexp.packed_dropout.kernel_memory import kept_by_recurrence
from pmexp.packed_dropout.report import KERNEL_UNSEEN, STAYS_TORCHS_OWN, UNREAD, Place, ReplacementReport
from pmexp.packed_dropout.routed_modules import (
    ATTENTION,
    DROPOUT,
    add_rebuilding,
    add_route,
    original_class,
    put_back,
    put_routed_attention,
    put_routed_dropout,
    remove_route,
    routed_attention,
    routed_dropout,
    take_routed_class,
)
from pmexp.shown import class_of


def replace_dropout(
    model: nn.Module,
    dropout: type[nn.Dropout],
    *,
    where: Place = "all",
    example: Mapping[str, Any] | Sequence[Any] | None = None,
    **options: Any,
) -> ReplacementReport:
    """Replaces every dropout of `model` in place, keeping each one's rate, mode and hooks.

    Modules are exchanged at once, and functional dropout that the source shows is routed. What reading does
    not show, the first forward of `model` in training does: it routes F.dropout and torch.dropout wherever
    they are called, with the masks of later steps, and names what draws by other means.

    Args:
        model: any module tree; its training mode, parameters and state_dict keys stay.
        dropout: a subclass of nn.Dropout, made as ``dropout(p, inplace, **options)``. One with a method
            ``drop(input, p, training, inplace)`` also takes over functional calls; with nn.Dropout
            itself these stay, or become again, what they are.
        where: "attention" is dropout of attention probabilities, "hidden" every other one.
        example: arguments of a forward, by position or name, with the tensors' real shapes. A copy of the
            model on fake tensors then runs them at once, which changes nothing else and settles the report;
            where it cannot, since the model asks for values, the first real forward does.

    Returns:
        The report, completed by that forward: see `ReplacementReport.settled`. A warning follows if by then
        nothing was replaced.

    Raises:
        TypeError: `model` is no module, or `dropout` no subclass of nn.Dropout.
        ValueError: `where` is unknown, or the model certainly has no dropout to replace.
    """
    _check_module(model, "replace_dropout(model, PackedDropout)")
    _check_dropout(dropout)
    if where not in get_args(Place):
        raise ValueError(f"where: {where!r} is unknown; allowed are {', '.join(get_args(Place))}")
    report = ReplacementReport(dropout.__name__, where)
    replacement = _Replacement(model, dropout, where, options, report)
    # An earlier replacement may have left routes.
    removed = {module: marks for module in list(model.modules()) if (marks := remove_route(module))}
    replacement.replace_what_is_read()
    if options.get("recompute") and not isinstance(model, torch.jit.ScriptModule):
        # A dropped tensor may enter a product far from its dropout.
        add_rebuilding(model, drops=False, first=FirstBackward(report))
    discovery = Discovery(report, dropout, options, type(model).__name__)
    replacement.watch_what_is_not(discovery)
    if example is not None and discovery.watched:
        run_dry(model, discovery, example)
    report.settled |= not discovery.watched
    if report.settled and (nothing := report.nothing_found(discovery.model)):
        for module in model.modules():
            remove_route(module)
        for module, marks in removed.items():
            put_back(module, marks)
        raise ValueError(nothing)
    return report


def recompute_attention(model: nn.Module) -> list[str]:
    """Sets `recompute` of PackedDropout on each packed dropout of attention probabilities.

    Returns the qualified names of those dropouts; none where attention drops by something else, or inside a
    kernel of its own. Raises TypeError for what is no module.
    """
    _check_module(model, "recompute_attention(model)")
    recomputing = []
    for path, parent in model.named_modules():
        attention = routed_attention(parent)
        by_sdpa = attention is not None and attention.name in attention.report.attention
        uncalled = attention.report.uncalled if attention else []
        for name, child in {**parent._modules, DROPOUT: routed_dropout(parent)}.items():
            if hasattr(child, "recompute") and drops_probabilities(parent, name):
                child.recompute = True
                add_rebuilding(parent)
                add_route(parent)  # where a compiler runs, it has to see the product that follows
                full = f"{path}.{name}".lstrip(".")
                # What is routed is not called under sdpa, unless the attention is changed.
                if not (name == DROPOUT and by_sdpa) and full not in uncalled:
                    recomputing.append(full)
        if attention and by_sdpa:  # else it may never be called
            dropout: Any = attention.dropout
            if hasattr(dropout, "recompute"):
                dropout.recompute = True
                add_rebuilding(parent)
                recomputing.append(f"{path}.{ATTENTION}".lstrip("."))
    return recomputing


@dataclass
class _Replacement:
    model: nn.Module
    dropout: type[nn.Dropout]
    where: Place
    options: dict[str, Any]
    report: ReplacementReport
    made: dict[nn.Module, nn.Module] = field(default_factory=dict)  # a shared module stays shared
    staying: set[nn.Module] = field(default_factory=set)  # dropouts that are left alone

    def replace_what_is_read(self) -> None:
        """Exchanges the modules, and routes the functions, that the source of the model's classes shows."""
        for path, module in list(self.model.named_modules(remove_duplicate=False)):
            if module not in self.staying:
                self.route_functions_of(module, path)
                self.exchange_children_of(module, path)
        if isinstance(self.model, nn.Dropout):
            self._leave("", "itself a dropout, which only a module around it could exchange")
        else:
            self._leave("", _why_left(self.model))

    def watch_what_is_not(self, discovery: Discovery) -> None:
        """Has a first forward show what the source does not."""
        unknown = [
            (path, module)
            for path, module in self.model.named_modules()
            if _is_to_be_watched(module) and module not in self.staying
        ]
        for path, module in unknown and [("", self.model), *unknown]:
            if not isinstance(module, torch.jit.ScriptModule):
                discovery.watch(module, path)

    def exchange_children_of(self, parent: nn.Module, path: str) -> None:
        rate_only = call_sites(parent).rate_only
        for name, child in list(parent._modules.items()):
            child_path = f"{path}.{name}" if path else name
            if child is None or name in rate_only or child in self.made.values():
                continue  # a rate-only one is never called: its owner reads `.p` and drops by a function
            if not isinstance(child, nn.Dropout):
                self._leave(child_path, _why_left(child))
                continue
            place = "attention" if drops_probabilities(parent, name) else "hidden"
            reason = why_it_stays(child) or ("" if self._chosen(place) else f"where={self.where}")
            if reason:
                self._leave(child_path, reason)
                self.staying.add(child)
                add_route(child)  # its call of F.dropout must not take the route of a module around it
                continue
            if child not in self.made:
                self.made[child] = exchanged(child, self.dropout, self.options)
            setattr(parent, name, self.made[child])
            self.report.modules.append(child_path)
            if getattr(self.made[child], "recompute", False):
                add_rebuilding(self._caller_of(parent, path))
                if place == "attention":
                    attention = self.dropout(**self.options).train(parent.training)
                    put_routed_attention(parent, AttentionDropout(attention, self.report, path))
                    add_route(parent)  # where a compiler runs, a route has to see the product that follows

    def route_functions_of(self, module: nn.Module, path: str) -> None:
        sites = call_sites(module)
        by_sdpa = _attends_by_sdpa(module) or (sites.eager_attention and "sdpa" in attention_of(module))
        if not (sites.direct or sites.eager_attention or by_sdpa):
            return
        if inspect.isgeneratorfunction(type(module).forward):
            self._leave(path, "its forward is a generator, whose steps run when no forward does")
            return
        if not hasattr(self.dropout, "drop"):
            self._leave(path, STAYS_TORCHS_OWN)
            return
        if self._chosen("attention"):
            child = self.dropout(**self.options).train(module.training)
            put_routed_attention(module, AttentionDropout(child, self.report, path))
            if by_sdpa:
                self.report.attention[path] = KERNEL_UNSEEN
        if self._chosen(place_of_functions(module)):
            dropout = self.dropout(**self.options).train(module.training)
            if sites.eager_attention and not sites.direct:
                notice_another_attention(module, path, dropout, self.report)
                if reason := why_attention_stays(attention_of(module)):
                    self._leave(path, reason)
                    take_routed_class(module)
                    return
            put_routed_dropout(module, dropout)
            if sites.direct or not by_sdpa:
                self.report.functions.append(path)
        if path not in self.report.functions and path not in self.report.attention:
            self._leave(path, f"where={self.where}")
        add_route(module, sites.methods)

    def _caller_of(self, parent: nn.Module, path: str) -> nn.Module:
        """The module whose forward calls the children of `parent`, which may be a mere list of them."""
        while path and isinstance(parent, nn.ModuleList | nn.ModuleDict):
            path = path.rpartition(".")[0]
            parent = self.model.get_submodule(path)
        return parent

    def _chosen(self, place: str) -> bool:
        return self.where in ("all", place)

    def _leave(self, path: str, reason: str | None) -> None:
        if reason:
            self.report.leave(path, reason)


def _check_module(model: object, call: str) -> None:
    """Raises TypeError for what is no module."""
    if not isinstance(model, nn.Module):
        said = f"the class {model.__name__}" if isinstance(model, type) else class_of(model)
        raise TypeError(f"model: {said} is no module; write {call}")


def _check_dropout(dropout: object) -> None:
    """Raises TypeError for what is no class of dropout."""
    write = "write replace_dropout(model, PackedDropout)"
    if not isinstance(dropout, type):
        raise TypeError(f"dropout: {class_of(dropout)} is no class; {write}, with options by name")
    if not issubclass(dropout, nn.Dropout):
        raise TypeError(f"dropout: the class {dropout.__name__} is no subclass of torch.nn.Dropout; {write}")


def _attends_by_sdpa(module: nn.Module) -> bool:
    """Whether dropout is inside attention in the forward of `module`: torch's, or one that says so itself."""
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0.0)
    return bool(getattr(module, "attends_by_sdpa", False))


def _why_left(module: nn.Module) -> str | None:
    kind = type(module).__name__
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return f"{kind} drops channels or rescales: its mask is not one bit an element"
    if isinstance(module, nn.RNNBase) and module.dropout > 0:
        return f"{kind} drops inside its own kernel{kept_by_recurrence(module)}"
    if call_sites(module).source_missing:
        return f"{kind} {UNREAD}: a functional dropout in it is not seen"
    return None


def _is_to_be_watched(module: nn.Module) -> bool:
    """Whether a module may drop in code that is not torch's: torch's own modules show what they do."""
    is_torchs = original_class(module).__module__.startswith(("torch.nn.", "torch.ao.", "torch._dynamo."))
    callables = [*module._forward_hooks, *module._forward_pre_hooks]
    callables += [
        value  # it may be an activation, or a forward that somebody put in
        for value in vars(module).values()
        if callable(value) and not (getattr(value, "__module__", None) or "").startswith("torch.")
    ]
    in_kernel = routed_attention(module) is not None  # which kernel runs, only running shows
    return (not is_torchs or in_kernel or bool(callables)) and not isinstance(module, nn.Dropout)
