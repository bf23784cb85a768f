"""Reads at which rates the dropouts of a model drop: a method may set others than were configured."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from pmexp.packed_dropout import ReplacementReport
from pmexp.shown import counted, first_five

Rates = dict[str, float]

_ELEMENTS = re.compile("drop(?!_?path)(?<!layerdrop)")  # those that drop whole layers or paths are others


def rates_of(module: nn.Module, report: ReplacementReport | None) -> Rates:
    """Returns the rate of each dropout of `module` by its name: of modules, and of functional dropout what
    the attributes of its module say, such as "vit.layers.0.attention.dropout_prob".

    report: names the modules with functional dropout; None: those rates are left out.
    """
    modules = dict(module.named_modules())
    rates = {name: float(each.p) for name, each in modules.items() if isinstance(each, _DropoutNd)}
    for name in _with_functions(report) if report else ():
        for attribute, value in vars(modules[name]).items() if name in modules else ():
            if isinstance(value, float) and _ELEMENTS.search(attribute):
                rates[f"{name}.{attribute}".lstrip(".")] = value
    return rates


def _with_functions(report: ReplacementReport) -> list[str]:
    return [*report.functions, *report.attention, *report.left]


def resting_in(module: nn.Module) -> list[str]:
    """Returns the names of the dropout modules that are in eval mode, in which they drop nothing."""
    dropouts = ((name, each) for name, each in module.named_modules() if isinstance(each, _DropoutNd))
    return [name for name, each in dropouts if each.p and not each.training]


def beside(module: nn.Module, called: Collection[float], chosen: float) -> str:
    """Says which places drop at other rates than the one chosen for all: functions, kernels, whole channels.

    Empty where none does. `called`: the rates that functions of dropout were called with, by modules too.
    """
    inside = [(name, each, _rate_inside(each)) for name, each in module.named_modules()]
    known = {0.0, chosen, *rates_of(module, None).values(), *(rate for _, _, rate in inside)}
    places = [
        f"{rate:g} in {name} ({type(each).__name__})"
        for name, each, rate in inside
        if rate not in (0, chosen)
    ]
    places += [f"{rate:g} by functions" for rate in sorted({*called} - known)]
    if not places:
        return ""
    return (
        f"variant.p: {chosen:g} was chosen, and the first step drops at others too: "
        f"{first_five(places)}; give them config.variant.p in model.builder"
    )


def _rate_inside(module: nn.Module) -> float:
    """The rate of a module of torch that drops by other means than nn.Dropout; 0 for any other module."""
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        drops = getattr(module, "num_layers", 2) > 1  # recurrent layers drop between one another
        return float(module.dropout) if drops else 0.0
    return float(module.p) if isinstance(module, _DropoutNd) and not isinstance(module, nn.Dropout) else 0.0


def by_rate(rates: Mapping[str, float]) -> dict[str, int]:
    """Returns how many of `rates` there are of each, by the rate as text, the lowest first."""
    return {f"{rate:g}": count for rate, count in sorted(Counter(rates.values()).items())}


def changes(before: Mapping[str, float], after: Mapping[str, float], when: str) -> str:
    """Says which of the dropouts that were there `before` have another rate `after`, or are gone; empty where
    none has. `when`: words for the time of `after`."""
    names = defaultdict(list)
    for name, rate in before.items():
        if after.get(name) != rate:
            now = f"{after[name]:g}" if name in after else "none, as it is taken out,"
            names[f"{now} in place of {rate:g}"].append(name)
    if not names:
        return ""
    parts = [f"{change}: {first_five(own)}" for change, own in names.items()]
    count, of_all = sum(map(len, names.values())), counted(len(before), "dropout")
    return f"variant.p: {when} the rate of {count} of {of_all} is another; {'; '.join(parts)}"
