"""What became of a criterion: in each task and system, and in all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pmexp.protocol import Bound, CriterionConfig
from pmexp_analysis.criteria.power import in_words
from pmexp_analysis.numbers.cells import word
from pmexp_analysis.numbers.scores import measured_with

Result = Literal["pass", "fail", "inconclusive", "not measured"]
_WORST_FIRST: tuple[Result, ...] = ("fail", "inconclusive", "not measured", "pass")
LEVEL = 0.90  # a criterion's interval leaves out 5 % on either side


@dataclass(frozen=True)
class TaskResult:
    """A criterion in one task and system: the statistic, its 90 % interval (None: there is none), over n runs
    or pairs of runs, and in words what it rests on. `room`: from the worse end of the interval to the
    threshold, below 0 beyond it; None where nothing was judged by a threshold."""

    task: str
    system: str
    result: Result
    why: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    seeds_needed: int | None = None  # to settle the claim; None where more seeds would not
    value_with_byte_masks: float | None = None  # the memory result, had the baseline kept a byte an element
    room: float | None = None


@dataclass(frozen=True)
class Judged:
    """A criterion over all its tasks: the worst of its parts decides, `value` and `why` are of that one; of
    several of one result it is the one with the least room."""

    name: str
    claim: str
    metric: str | None
    statistic: str
    comparison: str
    threshold: float
    result: Result
    value: float | None
    why: str
    parts: list[TaskResult]
    seeds_needed: int | None = None  # the most that any of `parts` needs
    value_with_byte_masks: float | None = None  # the memory result, had the baseline kept a byte an element
    one_measurement_with: str = ""  # the criterion before it that states the same claim in another unit


def combined(name: str, criterion: CriterionConfig, parts: Sequence[TaskResult]) -> Judged:
    """Passes where it passes everywhere. A part that was not measured leaves the rest inconclusive."""
    result: Result = "not measured"
    needed = [part.seeds_needed for part in parts if part.result == "inconclusive"]
    why = f"no finished run of a task that matches {', '.join(criterion.tasks)}"
    value = with_byte_masks = None
    if parts:
        worst = min(parts, key=_badness)
        mixed = worst.result == "not measured" and any(part.result == "pass" for part in parts)
        result, value = "inconclusive" if mixed else worst.result, worst.value
        why, with_byte_masks = worst.why, worst.value_with_byte_masks
        if len(parts) > 1:
            where = worst.task if worst.system == "plain" else f"{worst.task}, {worst.system}"
            counts = [
                f"{sum(p.result == r for p in parts)} {word(r)}" for r in _WORST_FIRST if _any(parts, r)
            ]
            why = f"{where}: {why} (of {len(parts)} tasks: {', '.join(counts)})"
    return Judged(
        name=name,
        claim=criterion.claim or name,
        metric=criterion.metric,
        statistic=criterion.function or criterion.statistic.name,
        comparison=criterion.comparison.name,
        threshold=criterion.threshold,
        result=result,
        value=value,
        why=why,
        parts=list(parts),
        seeds_needed=max(filter(None, needed), default=None) if result == "inconclusive" else None,
        value_with_byte_masks=with_byte_masks,
    )


def _badness(part: TaskResult) -> tuple[int, float]:
    return _WORST_FIRST.index(part.result), math.inf if part.room is None else part.room


def _any(parts: Sequence[TaskResult], result: Result) -> bool:
    return any(part.result == result for part in parts)


def named_once(judged: Sequence[Judged]) -> list[Judged]:
    """The same, where the criteria that state the claim of one before them, on the same measurement said in
    another unit, say so: throughput is the reciprocal of a step's time."""
    first: dict[object, str] = {}
    named = []
    for one in judged:
        measured = measured_with(one.metric or "") or one.metric
        claim = (measured, one.statistic, one.comparison, one.threshold, _places(one))
        is_ratio = (one.statistic, one.comparison) == ("relative_change", "no_worse")
        other = first.setdefault(claim, one.name) if is_ratio else one.name
        if other != one.name:
            why = f"{one.why}; one measurement with {other}, counted once"
            one = replace(one, why=why, one_measurement_with=other)
        named.append(one)
    return named


def _places(one: Judged) -> tuple[tuple[str, str], ...]:
    return tuple((part.task, part.system) for part in one.parts)


def decide(low: float, high: float, comparison: Bound, threshold: float) -> Result:
    """Pass where all of [low, high] is allowed, fail where none of it is, inconclusive between."""
    if comparison is Bound.at_least:
        allowed, refused = low >= threshold, high < threshold
    elif comparison is Bound.at_most:
        allowed, refused = high <= threshold, low > threshold
    else:
        allowed, refused = -threshold <= low and high <= threshold, high < -threshold or low > threshold
    return "pass" if allowed else "fail" if refused else "inconclusive"


def room_of(low: float, high: float, comparison: Bound, threshold: float) -> float | None:
    """Returns how far the worse end of [low, high] is from the threshold, below 0 beyond it; None where that
    end is not known."""
    if comparison is Bound.at_least:
        room = low - threshold
    elif comparison is Bound.at_most:
        room = threshold - high
    else:
        room = min(low + threshold, threshold - high)
    return room if math.isfinite(room) else None


def answer(judged: Sequence[Judged], method: str, absent: Sequence[str] = ()) -> tuple[Result, str]:
    """Returns the verdict on the whole experiment, and the question with its answer that says it.

    `absent`: a line for each side of the protocol that no run is of.
    """
    if not judged:
        return "not measured", "No success criteria were written down for this experiment."
    judged = _counted_once(judged)
    named = {result: [one.name for one in judged if one.result == result] for result in _WORST_FIRST}
    every = len(judged)
    result: Result
    if len(named["pass"]) == every:
        return "pass", f"Are all claims met? Yes: {method} meets {'all ' if every > 1 else 'its '}{every}."
    if failed := named["fail"]:
        result = "fail"
        clauses = [f"No: {method} misses {len(failed)} of {every} ({', '.join(failed)})", *_open(judged)]
    elif len(named["not measured"]) == every:
        lacking = f"no finished run recorded what is needed for {', '.join(named['not measured'])}"
        result, clauses = "not measured", [f"Not measured: {'; '.join(absent) or lacking}"]
    else:
        first, *others = _open(judged)
        result, clauses = "inconclusive", [f"Not settled: {first}", *others]
    if met := named["pass"]:
        clauses.append(f"{method} meets {len(met)}{'' if failed else f' of {every}'}")
    return result, f"Are all claims met? {'; '.join(clauses)}."


def _counted_once(judged: Sequence[Judged]) -> list[Judged]:
    """Claims on one measurement as one claim, with the names of all, and the result of the worst."""
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        groups.setdefault(one.one_measurement_with or one.name, []).append(one)
    worst = [min(group, key=lambda one: _WORST_FIRST.index(one.result)) for group in groups.values()]
    names = [" = ".join(one.name for one in group) for group in groups.values()]
    return [replace(one, name=name) for one, name in zip(worst, names, strict=True)]


def _open(judged: Sequence[Judged]) -> list[str]:
    """Clauses on what is open: for want of seeds, for what its own line says, for want of any measurement."""
    clauses = []
    if seeds := [one for one in judged if one.seeds_needed]:
        each = ", ".join(f"{one.name}: {in_words(one.seeds_needed or 0)}" for one in seeds)
        clauses.append(f"{len(seeds)} {'need' if len(seeds) > 1 else 'needs'} more seeds ({each})")
    for result, one_is, several_are in (
        ("inconclusive", "is open, and its line says why", "are open, and their lines say why"),
        ("not measured", "is not measured", "are not measured"),
    ):
        names = [one.name for one in judged if one.result == result and not one.seeds_needed]
        if names:
            clauses.append(f"{len(names)} {several_are if len(names) > 1 else one_is} ({', '.join(names)})")
    return clauses
