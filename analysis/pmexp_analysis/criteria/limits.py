"""Criteria on what fits into memory."""

import math
from collections.abc import Sequence

from pmexp.protocol import CriterionConfig, ProtocolConfig
from pmexp_analysis.cells import number
from pmexp_analysis.criteria.result import Part, decide
from pmexp_analysis.fits import Limits


def judge_largest(criterion: CriterionConfig, limits: Limits, protocol: ProtocolConfig) -> Part:
    """The largest setting that fits, method over baseline.

    The true limit lies between the largest that fits and the smallest that does not, so that the ratio has an
    interval too: tries far apart leave it open.
    """
    method, baseline = limits.tries.get(protocol.method), limits.tries.get(protocol.baseline)
    where = f"{limits.over} ({limits.how})"
    if not method or not baseline or not method.largest or not baseline.largest:
        lacking = protocol.baseline if method and method.largest else protocol.method
        return Part(limits.task, limits.system, "not measured", f"no {where} at which {lacking} fits")
    if math.isinf(baseline.first_lack):
        why = f"nothing ran out of memory: {protocol.baseline} fits at {where} {baseline.largest:g} still"
        return Part(limits.task, limits.system, "not measured", why)
    low = method.largest / _before(baseline.first_lack)
    high = _before(method.first_lack) / baseline.largest
    value = method.largest / baseline.largest
    result = decide(low, high, criterion.comparison, criterion.threshold)
    why = (
        f"largest {where} {method.largest:g} against {baseline.largest:g}: {number(value)}x, between "
        f"{number(low)}x and {number(high) if math.isfinite(high) else 'any'}x as the tries lie"
    )
    return Part(limits.task, limits.system, result, why, value, low, high if math.isfinite(high) else None)


def _before(lack: float) -> float:
    """The largest setting that may still fit where `lack` does not: settings are whole numbers."""
    return lack - 1


def judge_lone_fit(
    criterion: CriterionConfig,
    limits: Sequence[Limits],
    runs: Sequence[str],
    lacking: int,
    protocol: ProtocolConfig,
) -> Part:
    """How many configurations fit with the method alone: `runs` of the sweep, of `lacking` for which the
    baseline has no memory, and settings that were tried with both."""
    found = list(runs)
    tried = lacking
    for limit in limits:
        method, baseline = limit.tries.get(protocol.method), limit.tries.get(protocol.baseline)
        if limit.how != "run" and method and baseline and math.isfinite(baseline.first_lack):
            tried += 1
            if method.largest >= baseline.first_lack:
                found.append(f"{limit.task} at {limit.over}={method.largest:g} ({limit.how})")
    if not tried:
        return Part("all", "all", "not measured", "nothing ran out of memory with the baseline")
    value = float(len(found))
    if not found:
        why = f"none of {tried} that lack memory with {protocol.baseline} fitted with {protocol.method}"
        return Part("all", "all", "inconclusive", why, value)
    result = decide(value, value, criterion.comparison, criterion.threshold)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return Part("all", "all", result, f"only with {protocol.method}: {', '.join(found[:3])}{more}", value)
