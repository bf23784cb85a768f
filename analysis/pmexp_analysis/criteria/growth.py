"""Criteria on how a saving grows with a setting."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from scipy import special

from pmexp.protocol import CriterionConfig, ProtocolConfig
from pmexp_analysis.criteria.result import LEVEL, TaskResult, decide, room_of
from pmexp_analysis.numbers import stats
from pmexp_analysis.numbers.scales import Undefined
from pmexp_analysis.numbers.series import Series

_FEWEST_SETTINGS = 3
_RAN_AS = {"dataset.max_length": "progress/computed_length"}  # setting -> metric of what ran
_DIGITS = 9  # significant digits of an exponent; further ones are rounding errors


def judge_growth(
    criterion: CriterionConfig, series: Series, metric: str, protocol: ProtocolConfig
) -> TaskResult:
    """Judges k of saving ~ setting^k, by least squares of the logarithms, with its t interval.

    The saving at a setting is the mean over seeds of baseline - method. Settings that ran as one, such as
    lengths that a model pads to one, are one. Raises Undefined where fewer than needed were configured.
    """
    savings, ran_as = _savings(series, metric, protocol)
    if len(ran_as) < _FEWEST_SETTINGS:
        raise Undefined(
            f"{len(ran_as)} values of {series.over} have runs of both method and baseline; at "
            f"least {_FEWEST_SETTINGS} are needed"
        )
    said = _said_to_have_run(series.over, ran_as)
    if len(savings) < _FEWEST_SETTINGS:
        why = f"{said}; at least {_FEWEST_SETTINGS} different values are needed"
        return TaskResult(series.task, series.system, "inconclusive", why, n=len(savings))
    at, saved = np.array(sorted(savings)), np.array([savings[setting] for setting in sorted(savings)])
    if (saved <= 0).any():
        worst = at[saved <= 0][0]
        why = f"nothing is saved at {series.over}={worst:g}"
        return TaskResult(series.task, series.system, "fail", why, n=len(savings))
    fitted, error = stats.line(np.log(at), np.log(saved))
    half = float(special.stdtrit(len(at) - 2, (1 + LEVEL) / 2)) * error
    slope, low, high = (round(end, _DIGITS) for end in (fitted, fitted - half, fitted + half))
    why = (
        f"the saving grows as {series.over}^{slope:.3f}, 90 % interval {low:.3f} to {high:.3f}, "
        f"{len(at)} settings from "
        f"{at[0]:g} to {at[-1]:g}"
    )
    result = decide(low, high, criterion.comparison, criterion.threshold)
    why = "; ".join(filter(None, [why, said]))
    room = room_of(low, high, criterion.comparison, criterion.threshold)
    return TaskResult(series.task, series.system, result, why, slope, low, high, len(at), room=room)


def _savings(
    series: Series, metric: str, protocol: ProtocolConfig
) -> tuple[dict[float, float], dict[float, float]]:
    """(setting that ran -> mean saving, setting that was configured -> the one that ran)."""
    values: dict[tuple[float, int], dict[str, float]] = defaultdict(dict)
    ran_as: dict[float, float] = {}
    for setting, member in series.members:
        finals = member.run.finals or {}
        value = finals.get(metric)
        if value is not None and np.isfinite(value):
            values[setting, member.labels.seed][member.labels.variant] = value
            ran = finals.get(_RAN_AS.get(series.over, ""), setting)
            ran_as[setting] = ran if np.isfinite(ran) and ran > 0 else setting
    values_at: dict[float, list[float]] = defaultdict(list)
    paired = set()
    for (setting, _), by_variant in values.items():
        if protocol.method in by_variant and protocol.baseline in by_variant:
            paired.add(setting)
            values_at[ran_as[setting]].append(by_variant[protocol.baseline] - by_variant[protocol.method])
    savings = {setting: float(np.mean(saved)) for setting, saved in values_at.items()}
    return savings, {setting: ran_as[setting] for setting in sorted(paired)}


def _said_to_have_run(over: str, ran_as: Mapping[float, float]) -> str:
    """Which settings ran as another; empty where each ran as itself."""
    together: dict[float, list[str]] = defaultdict(list)
    for setting, ran in ran_as.items():
        together[ran].append(f"{setting:g}")
    word = "lengths" if over in _RAN_AS else over
    groups = [
        f"{', '.join(settings)} all ran with {ran:g}"
        for ran, settings in together.items()
        if settings != [f"{ran:g}"]
    ]
    return f"{word} {' and '.join(groups)}" if groups else ""
