"""What changed between two reports of an experiment."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmexp.errors import UserError
from pmexp_analysis.numbers.cells import number, word

Report = Mapping[str, Any]
_ROUNDING = 1e-9


def read_report(file: Path) -> Report:
    """A report.json, of this version or one before. Raises UserError for anything else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if (
            isinstance(content, dict)
            and isinstance(content["rows"], list)
            and content["comparisons"] is not None
        ):
            return content
    except OSError as error:
        raise UserError(f"compare={file}: {error.strerror or error}; name a report.json") from None
    except (ValueError, KeyError):
        pass
    raise UserError(f"compare={file} is no report of this package; name the report.json of an earlier report")


def changes(old: Report, new: Report) -> list[str]:
    """A sentence a change, the weightiest first: the verdict, criteria, verdicts on metrics, means, runs.

    Raises UserError where the old report lacks what every report has.
    """
    try:
        return [
            *_verdict(old, new),
            *_criteria(old, new),
            *_comparisons(old, new),
            *_means(old, new),
            *_missing(old, new),
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"compare: the old report is damaged ({error!r}); make it again") from None


def _verdict(old: Report, new: Report) -> list[str]:
    before, now = (report.get("verdict", {}).get("result", "none") for report in (old, new))
    return [] if before == now else [f"The verdict was {word(before)} and is {word(now)}."]


def _criteria(old: Report, new: Report) -> list[str]:
    before, now = ({c["name"]: c for c in report.get("criteria", [])} for report in (old, new))
    sentences = [f"{name}: is new ({word(now[name]['result'])})." for name in now if name not in before]
    sentences += [
        f"{name}: is gone (it was {word(before[name]['result'])})." for name in before if name not in now
    ]
    for name in (name for name in now if name in before):
        one, other = now[name], before[name]
        if one["threshold"] != other["threshold"]:
            sentences.append(
                f"{name}: its threshold was {number(other['threshold'])}, is {number(one['threshold'])}."
            )
        for what in ("metric", "statistic", "comparison"):
            if one[what] != other.get(what, one[what]):
                sentences.append(f"{name}: its {what} was {other[what]}, is {one[what]}.")
        if one["result"] != other["result"]:
            values = f"{number(other['value'])}, now {number(one['value'])}"
            sentences.append(f"{name}: was {word(other['result'])} and is {word(one['result'])} ({values}).")
    return sentences


def _comparisons(old: Report, new: Report) -> list[str]:
    before, now = (_by_place(report["comparisons"]) for report in (old, new))
    return [
        f"{_named(place)}: was {word(before[place]['verdict'])} and is {word(now[place]['verdict'])}."
        for place in now
        if place in before and before[place]["verdict"] != now[place]["verdict"]
    ]


def _means(old: Report, new: Report) -> list[str]:
    before, now = (_by_place(report["rows"]) for report in (old, new))
    sentences = [f"{_named(place)}: is new." for place in now if place not in before]
    sentences += [f"{_named(place)}: is gone." for place in before if place not in now]
    for place in (place for place in now if place in before):
        one, other = now[place], before[place]
        if one["n"] != other["n"]:
            sentences.append(f"{_named(place)}: {other['n']} runs were counted, now {one['n']}.")
        if _differ(one["mean"], other["mean"]):
            sentences.append(
                f"{_named(place)}: the mean was {number(other['mean'])} and is {number(one['mean'])}."
            )
    return sentences


def _missing(old: Report, new: Report) -> list[str]:
    before, now = (
        {f"{m['task']} / {m['system']} / {m['variant']} seed {m['seed']}" for m in report.get("missing", [])}
        for report in (old, new)
    )
    return [f"{run} is missing now." for run in sorted(now - before)] + [
        f"{run} is no longer missing." for run in sorted(before - now)
    ]


def _by_place(entries: list[Report]) -> dict[tuple[str, ...], Report]:
    return {tuple(one[key] for key in ("task", "system", "variant", "metric")): one for one in entries}


def _named(place: tuple[str, ...]) -> str:
    return " / ".join(place)


def _differ(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is not other
    return abs(one - other) > _ROUNDING * max(abs(one), abs(other))
