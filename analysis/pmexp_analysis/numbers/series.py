"""Runs that differ in one numeric setting and in what is compared, such as all lengths of one model."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pmexp.run_folder.differences import distinct_items, part_of, said
from pmexp_analysis.sources.experiment import Member


@dataclass(frozen=True)
class Series:
    """`members` have a number in the setting `over`; `task` names all else in which they are alike."""

    task: str
    system: str
    over: str
    members: list[tuple[float, Member]]

    @property
    def settings(self) -> list[float]:
        return sorted({setting for setting, _ in self.members})


def series_over(members: Sequence[Member], over: str) -> list[Series]:
    """A Series a task and system whose runs take several values of the setting `over` and are alike in the
    task's others. A setting that follows from `over`, as positions do from a length, sets nothing apart."""
    if not with_several(members, [over]):
        return []
    by_words: dict[tuple[str, str], list[Member]] = defaultdict(list)
    for member in members:
        if number_of(member.run.settings, over) is not None:
            by_words[member.words.task, member.labels.system].append(member)
    made = []
    for (task, system), alike in by_words.items():
        if len({number_of(member.run.settings, over) for member in alike}) > 1:
            for name, group in told_apart(alike, [over]).items():
                settings = [(number_of(member.run.settings, over) or 0.0, member) for member in group]
                made.append(Series(f"{task}{name}", system, over, settings))
    return [one for one in made if len(one.settings) > 1]


def told_apart(members: Sequence[Member], overs: Sequence[str]) -> dict[str, list[Member]]:
    """The runs by what varies in their task beside the settings `overs`, and does not follow from them."""
    keys = {key for member in members for key in member.run.settings if part_of(key) == "task"}
    apart = []
    for key in sorted(keys - {*overs, "seed"}):
        values: dict[tuple[object, ...], set[str]] = defaultdict(set)
        for member in members:
            at = tuple(member.run.settings.get(over) for over in overs)
            values[at].add(str(member.run.settings.get(key)))
        if any(len(there) > 1 for there in values.values()):
            apart.append(key)
    groups: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        groups["".join(f" {key}={said(member.run.settings.get(key))}" for key in apart)].append(member)
    return groups


def number_of(settings: Mapping[str, object], key: str) -> float | None:
    """The setting as a number, also from text, as MLflow keeps it; None for any other."""
    value = settings.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def with_several(members: Sequence[Member], keys: Sequence[str]) -> list[str]:
    """Those of `keys` that have several numbers over all runs; quick, for most experiments have none."""
    seen: dict[str, set[float]] = {key: set() for key in keys}
    for key, value in distinct_items(member.run.settings for member in members):
        if key in seen and (number := number_of({key: value}, key)) is not None:
            seen[key].add(number)
    return [key for key in keys if len(seen[key]) > 1]


def varying(members: Sequence[Member], keys: Sequence[str]) -> list[str]:
    """Those of `keys` in which runs of one task's words have several numbers."""
    seen: dict[tuple[str, str], set[float]] = defaultdict(set)
    for member in members:
        for key in keys:
            value = number_of(member.run.settings, key)
            if value is not None:
                seen[member.words.task, key].add(value)
    return [key for key in keys if any(len(v) > 1 for (_, k), v in seen.items() if k == key)]
