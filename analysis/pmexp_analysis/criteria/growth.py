"""Criteria on how a saving grows with a setting."""

from collections import defaultdict

import numpy as np
from scipy import stats as scipy_stats

from pmexp.protocol import CriterionConfig, ProtocolConfig
from pmexp_analysis.criteria.result import LEVEL, TaskResult, decide
from pmexp_analysis.numbers.scales import Undefined
from pmexp_analysis.numbers.series import Series

_FEWEST_SETTINGS = 3
_DIGITS = 9  # of an exponent; more are rounding


def judge_growth(
    criterion: CriterionConfig, series: Series, metric: str, protocol: ProtocolConfig
) -> TaskResult:
    """k of saving ~ setting^k, by least squares of the logarithms, with its t interval.

    The saving at a setting is the mean over seeds of baseline - method. Raises Undefined.
    """
    savings = _savings(series, metric, protocol)
    if len(savings) < _FEWEST_SETTINGS:
        raise Undefined(
            f"{len(savings)} settings of {series.over} with both: at least {_FEWEST_SETTINGS} are needed"
        )
    at, saved = np.array(sorted(savings)), np.array([savings[setting] for setting in sorted(savings)])
    if (saved <= 0).any():
        worst = at[saved <= 0][0]
        said = f"nothing is saved at {series.over}={worst:g}"
        return TaskResult(series.task, series.system, "fail", said, n=len(savings))
    fit = scipy_stats.linregress(np.log(at), np.log(saved))
    half = float(scipy_stats.t.ppf((1 + LEVEL) / 2, len(at) - 2)) * float(fit.stderr)
    slope, low, high = (round(float(end), _DIGITS) for end in (fit.slope, fit.slope - half, fit.slope + half))
    why = (
        f"saving ~ {series.over}^{slope:.3f}, 90 % interval {low:.3f} to {high:.3f}, {len(at)} settings from "
        f"{at[0]:g} to {at[-1]:g}"
    )
    result = decide(low, high, criterion.comparison, criterion.threshold)
    return TaskResult(series.task, series.system, result, why, slope, low, high, len(at))


def _savings(series: Series, metric: str, protocol: ProtocolConfig) -> dict[float, float]:
    values: dict[tuple[float, int], dict[str, float]] = defaultdict(dict)
    for setting, member in series.members:
        value = (member.run.finals or {}).get(metric)
        if value is not None and np.isfinite(value):
            values[setting, member.labels.seed][member.labels.variant] = value
    found: dict[float, list[float]] = defaultdict(list)
    for (setting, _), by_variant in values.items():
        if protocol.method in by_variant and protocol.baseline in by_variant:
            found[setting].append(by_variant[protocol.baseline] - by_variant[protocol.method])
    return {setting: float(np.mean(saved)) for setting, saved in found.items()}
