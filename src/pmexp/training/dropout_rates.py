"""Reads at which rates the dropouts of a model drop: a method may set others than were configured."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from pmexp.packed_dropout import ReplacementReport
from pmexp.packed_dropout.report import STAYS_TORCHS_OWN
from pmexp.shown import counted

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
    staying = (name for name, reason in report.left.items() if reason == STAYS_TORCHS_OWN)
    return [*report.functions, *report.attention, *staying]


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
    parts = [f"{change}: {', '.join(own[:5])}{', ...' * (len(own) > 5)}" for change, own in names.items()]
    count, of_all = sum(map(len, names.values())), counted(len(before), "dropout")
    return f"variant.p: {when} the rate of {count} of {of_all} is another; {'; '.join(parts)}"
