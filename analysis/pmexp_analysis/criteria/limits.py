"""Criteria on what fits into memory."""

import math
from collections.abc import Sequence

from pmexp.protocol import CriterionConfig, ProtocolConfig, is_about
from pmexp.shown import few, first_three
from pmexp_analysis.criteria.result import TaskResult, decide, room_of
from pmexp_analysis.numbers.cells import number
from pmexp_analysis.numbers.fits import Limits, LoneFits, Tries


def judge_largest(criterion: CriterionConfig, limits: Limits, protocol: ProtocolConfig) -> TaskResult:
    """The largest setting that fits, method over baseline.

    The true limit lies between the largest that fits and the smallest that does not, so that the ratio has an
    interval too: tries far apart leave it open.
    """
    method, baseline = (limits.tries.get(v, Tries()) for v in (protocol.method, protocol.baseline))
    low, high = _at_least(method, baseline), _at_most(method, baseline)
    where = f"{limits.over} ({limits.how})"
    sides = ((protocol.method, method), (protocol.baseline, baseline))
    unsettled = "".join(
        f"; seeds of {variant} disagree whether {', '.join(map(number, tries.unsettled))} fits"
        for variant, tries in sides
        if tries.unsettled
    )
    if low == 0 and math.isinf(high):
        why = f"no tried {where} fits with {protocol.method if baseline.largest else protocol.baseline}"
        if method.largest and baseline.largest:
            why = f"nothing ran out of memory: {protocol.baseline} still fits at {where} {baseline.largest:g}"
        return TaskResult(limits.task, limits.system, "not measured", why + unsettled)
    value = method.largest / baseline.largest if method.largest and baseline.largest else None
    result = decide(low, high, criterion.comparison, criterion.threshold)
    ends = [f"{number(end)}x" if math.isfinite(end) else "any" for end in (low, high)]
    said = [number(tries.largest) if tries.largest else "none" for tries in (method, baseline)]
    why = f"largest {where} {said[0]} versus {said[1]}; by what was tried, a ratio of {ends[0]} to {ends[1]}"
    known_low, known_high = (end if math.isfinite(end) else None for end in (low, high))
    room = room_of(low, high, criterion.comparison, criterion.threshold)
    return TaskResult(
        limits.task, limits.system, result, why + unsettled, value, known_low, known_high, room=room
    )


def _at_least(method: Tries, baseline: Tries) -> float:
    """The least ratio of the limits that the tries allow: the baseline may fit up to its first lack."""
    if not method.surely:
        return 0.0
    most = _before(baseline.first_lack)
    return method.surely / most if most else math.inf


def _at_most(method: Tries, baseline: Tries) -> float:
    return _before(method.first_lack) / baseline.surely if baseline.surely else math.inf


def _before(lack: float) -> float:
    """The largest setting that may still fit where `lack` does not: settings are whole numbers."""
    return lack - 1


def judge_lone_fit(
    criterion: CriterionConfig,
    limits: Sequence[Limits],
    lone: LoneFits,
    protocol: ProtocolConfig,
) -> TaskResult:
    """How many settings fit with the method alone: by the runs of both, and by what was tried with both by
    pmexp.fit. Seeds of one setting count once; settings that are unsettled count for nothing and are named.
    """
    tried = {(at.task, at.system) for at in lone.lacking if is_about(criterion, at.task)}
    alone = tried & {(at.task, at.system) for at in lone.fitting}
    unsettled = sorted({at.task for at in lone.unsettled if is_about(criterion, at.task)})
    aside = f"; seeds or devices disagree, which counts for nothing: {few(unsettled)}" if unsettled else ""
    tasks = [task for task, _ in sorted(alone)]
    count = len(tried)
    for limit in limits:
        method, baseline = (limit.tries.get(v, Tries()) for v in (protocol.method, protocol.baseline))
        if limit.how != "run" and is_about(criterion, limit.task) and math.isfinite(baseline.first_lack):
            count += bool(limit.tries.get(protocol.method))
            if method.largest >= baseline.first_lack:
                tasks.append(f"{limit.task} at {limit.over}={method.largest:g} ({limit.how})")
    if not count:
        why = f"nothing{' settled' * bool(unsettled)} ran out of memory with the baseline{aside}"
        return TaskResult("all", "all", "not measured", why)
    value = float(len(tasks))
    if not tasks:
        why = f"of {count} that run out of memory with {protocol.baseline}, none fits with {protocol.method}"
        return TaskResult("all", "all", "inconclusive", why + aside, value)
    result = decide(value, value, criterion.comparison, criterion.threshold)
    why = f"fits only with {protocol.method}: {first_three(tasks)}{aside}"
    return TaskResult("all", "all", result, why, value)
