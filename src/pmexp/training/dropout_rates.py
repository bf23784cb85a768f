"""Reads at which rates the dropout modules of a model drop: a method may set others than were configured."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from pmexp.shown import counted

Rates = dict[str, float]


def rates_of(module: nn.Module) -> Rates:
    """Returns the rate of each dropout module of `module` by its name."""
    return {name: float(each.p) for name, each in module.named_modules() if isinstance(each, _DropoutNd)}


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
    count, of_all = sum(map(len, names.values())), counted(len(before), "dropout module")
    return f"variant.p: {when} the rate of {count} of {of_all} is another; {'; '.join(parts)}"
