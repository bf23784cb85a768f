"""What became of a criterion: in each task and system, and in all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pmexp.protocol import Bound, CriterionConfig

Result = Literal["pass", "fail", "inconclusive", "not measured"]
_WORST_FIRST: tuple[Result, ...] = ("fail", "inconclusive", "not measured", "pass")
LEVEL = 0.90  # of a criterion's interval: 5 % a side


@dataclass(frozen=True)
class Part:
    """A criterion in one task and system: the statistic, its 90 % interval (None: there is none), over n runs
    or pairs of runs, and in words what it rests on."""

    task: str
    system: str
    result: Result
    why: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


@dataclass(frozen=True)
class Judged:
    """A criterion over all its tasks: the worst of its parts decides, `value` and `why` are of that one."""

    name: str
    claim: str
    metric: str | None
    statistic: str
    comparison: str
    threshold: float
    result: Result
    value: float | None
    why: str
    parts: list[Part]


def combined(name: str, criterion: CriterionConfig, parts: Sequence[Part]) -> Judged:
    """Passes where it passes everywhere. A part that was not measured leaves the rest inconclusive."""
    result: Result = "not measured"
    why = f"no finished run of a task like {', '.join(criterion.tasks)}"
    value = None
    if parts:
        worst = min(parts, key=lambda part: _WORST_FIRST.index(part.result))
        mixed = worst.result == "not measured" and any(part.result == "pass" for part in parts)
        result, value = "inconclusive" if mixed else worst.result, worst.value
        why = worst.why
        if len(parts) > 1:
            where = worst.task if worst.system == "plain" else f"{worst.task}, {worst.system}"
            counts = [f"{sum(p.result == r for p in parts)} {r}" for r in _WORST_FIRST if _any(parts, r)]
            why = f"{where}: {why} (of {len(parts)}: {', '.join(counts)})"
    return Judged(
        name=name,
        claim=criterion.claim or name,
        metric=criterion.metric,
        statistic=criterion.statistic.name,
        comparison=criterion.comparison.name,
        threshold=criterion.threshold,
        result=result,
        value=value,
        why=why,
        parts=list(parts),
    )


def _any(parts: Sequence[Part], result: Result) -> bool:
    return any(part.result == result for part in parts)


def decide(low: float, high: float, comparison: Bound, threshold: float) -> Result:
    """Pass where all of [low, high] is allowed, fail where none of it is, inconclusive between."""
    if comparison is Bound.at_least:
        allowed, refused = low >= threshold, high < threshold
    elif comparison is Bound.at_most:
        allowed, refused = high <= threshold, low > threshold
    else:
        allowed, refused = -threshold <= low and high <= threshold, high < -threshold or low > threshold
    return "pass" if allowed else "fail" if refused else "inconclusive"


def answer(judged: Sequence[Judged], method: str) -> tuple[Result, str]:
    """The verdict on the whole experiment, and the sentence that says it."""
    if not judged:
        return "not measured", "No success criteria were written down for this experiment."
    named = {result: [one.name for one in judged if one.result == result] for result in _WORST_FIRST}
    count = f"{len(judged)} criteria" if len(judged) > 1 else "1 criterion"
    if len(named["pass"]) == len(judged):
        return "pass", f"Yes: {method} meets {'all ' if len(judged) > 1 else 'its '}{count}."
    others = [
        f"{len(names)} {result} ({', '.join(names)})"
        for result, names in named.items()
        if names and result != "pass"
    ]
    passed = f"{len(named['pass'])} of {method}'s {count} pass{'' if len(judged) > 1 else 'es'}"
    if named["fail"]:
        return "fail", f"No: {passed}, {', '.join(others)}."
    result: Result = "not measured" if len(named["not measured"]) == len(judged) else "inconclusive"
    return result, f"Not shown: {passed}, {', '.join(others)}."
