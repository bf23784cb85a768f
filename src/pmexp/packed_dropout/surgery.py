"""replace_dropout(): puts another dropout in the place of every dropout of a model.

Modules are exchanged. Functional calls are routed: a module whose code calls F.dropout gets a child
named `routed_dropout` and a pair of forward hooks, between which F.dropout means that child. The route is a
TorchFunctionMode, entered anew by each forward, so a checkpoint's recomputation takes it as well,
torch.compile traces through it, and no other model in the process is touched.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from pmexp.packed_dropout.call_sites import CallSites, call_sites

Place = Literal["all", "attention", "hidden"]

ROUTED = "routed_dropout"
_ROUTE = "_dropout_route"


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
            itself these stay what they are.
        where: "attention" is dropout of attention probabilities, "hidden" every other one.

    Raises:
        ValueError: `where` is unknown, or nothing was there to replace.
    """
    if where not in get_args(Place):
        raise ValueError(f"where: {where!r} is unknown; allowed are {', '.join(get_args(Place))}")
    report = ReplacementReport(dropout.__name__, where)
    routed = [(n, m) for n, m in model.named_modules() if _calls_functional(m)]
    for name, module in routed:
        _route(module, name, dropout, where, options, report)
    made: dict[nn.Module, nn.Module] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if name.rpartition(".")[2] != ROUTED:
            _exchange_children(name, module, dropout, where, options, report, made)
    if not report.modules and not report.functions:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in report.left.items())
        raise ValueError(
            f"replace_dropout(where={where!r}) found nothing to replace in {type(model).__name__}"
            + (f" ({reasons})" if reasons else ": it has no dropout")
        )
    return report


def _exchange_children(
    prefix: str,
    parent: nn.Module,
    dropout: type[nn.Dropout],
    where: Place,
    options: dict[str, Any],
    report: ReplacementReport,
    made: dict[nn.Module, nn.Module],
) -> None:
    sites = _sites(parent)
    for name, child in list(parent.named_children()):
        path = f"{prefix}.{name}" if prefix else name
        if name == ROUTED or child in made.values():
            continue
        if not isinstance(child, nn.Dropout):
            reason = _why_left(child)
            if reason:
                report.left[path] = reason
        elif name in sites.rate_only:
            continue  # never called: its owner reads the rate and drops by a function
        elif where not in ("all", _place(parent, name)):
            report.left[path] = f"where={where}"
            _add_hooks(child)
        else:
            if child not in made:
                made[child] = dropout(child.p, child.inplace, **options).train(child.training)
            setattr(parent, name, made[child])
            report.modules.append(path)


def _route(
    module: nn.Module,
    name: str,
    dropout: type[nn.Dropout],
    where: Place,
    options: dict[str, Any],
    report: ReplacementReport,
) -> None:
    """Routes the functional dropout of one module, or says why it stays."""
    attention = _implementation(module)
    if not _sites(module).direct and attention != "eager":
        report.left[name] = f"attention dropout lives inside the {attention} kernel; it needs eager attention"
        return
    place = "attention" if "Attention" in type(module).__name__ else "hidden"
    chosen = where in ("all", place)
    if chosen and hasattr(dropout, "drop"):
        module.add_module(ROUTED, dropout(**options).train(module.training))
        report.functions.append(name)
    else:
        module.add_module(ROUTED, nn.Dropout())  # has no `drop`: the calls below stay F.dropout's own
        report.left[name] = f"where={where}" if not chosen else "functional calls already are nn.Dropout's"
    _add_hooks(module)


class _Route(TorchFunctionMode):
    """Sends F.dropout to `dropout.drop`; without one, to itself (which shields from an outer route)."""

    def __init__(self, dropout: nn.Module | None) -> None:
        super().__init__()
        self.drop = getattr(dropout, "drop", None)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.dropout:
            func = self.drop or _stock_dropout
        return func(*args, **(kwargs or {}))


def _stock_dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    return torch.dropout_(input, p, training) if inplace else torch.dropout(input, p, training)


def _add_hooks(module: nn.Module) -> None:
    if _enter_route not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_enter_route)
        module.register_forward_hook(_leave_route, always_call=True)


def _enter_route(module: nn.Module, args: Any) -> None:
    route = _Route(getattr(module, ROUTED, None))
    object.__setattr__(module, _ROUTE, route)
    route.__enter__()


def _leave_route(module: nn.Module, args: Any, output: Any) -> None:
    route = module.__dict__.pop(_ROUTE, None)
    if route is not None:
        route.__exit__(None, None, None)


def _calls_functional(module: nn.Module) -> bool:
    sites = _sites(module)
    return sites.direct or sites.eager_attention


def _sites(module: nn.Module) -> CallSites:
    return call_sites(type(module))


def _implementation(module: nn.Module) -> str:
    return str(getattr(getattr(module, "config", None), "_attn_implementation", None) or "eager")


def _place(parent: nn.Module, name: str) -> Place:
    """Dropout of attention probabilities sits in an attention class, under a name that says nothing else."""
    of_output = name.startswith(("resid", "out", "hidden", "proj", "pos"))
    return "attention" if "Attention" in type(parent).__name__ and not of_output else "hidden"


def _why_left(module: nn.Module) -> str | None:
    kind = type(module).__name__
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return f"{kind} drops channels or rescales: its mask is not one bit an element"
    if "DropPath" in kind or "StochasticDepth" in kind:
        return f"{kind} drops whole samples: nothing to pack"
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase) and module.dropout > 0:
        return f"{kind} drops inside its own kernel"
    if not isinstance(module, nn.Module) or not _sites(module).source_missing:
        return None
    return f"{kind} has no source to read: a functional dropout in it is not seen"
