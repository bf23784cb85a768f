"""What fits into memory: from runs that ran out of it or did not, and from answers of `python -m pmexp.fit`.

An answer counts when it lies in runs/<name>/fit/, where `pmexp.fit out=runs/<name>/fit/<any>.json` puts it.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pmexp.errors import UserError
from pmexp.protocol import ComparedLabel
from pmexp.run_folder.files import opened
from pmexp_analysis.numbers.series import series_over
from pmexp_analysis.sources.assemble import along
from pmexp_analysis.sources.distinguish import distinguish
from pmexp_analysis.sources.experiment import DIVERGED, FINISHED, OUT_OF_MEMORY, Experiment, Labels, Member

_SETTING_OF = {"batch": "train.batch_size", "length": "dataset.max_length"}


@dataclass(frozen=True)
class Tries:
    """Settings of one kind at which a variant did and did not fit."""

    fits: list[float] = field(default_factory=list)
    lacks: list[float] = field(default_factory=list)

    @property
    def largest(self) -> float:
        """The largest that fits, 0 where none does."""
        return max(self.fits, default=0.0)

    @property
    def first_lack(self) -> float:
        """The smallest above it that does not, infinity where all that was tried fits."""
        return min((setting for setting in self.lacks if setting > self.largest), default=float("inf"))

    @property
    def surely(self) -> float:
        """The largest that fits whenever it is tried, 0 where none does."""
        return max((setting for setting in self.fits if setting not in self.lacks), default=0.0)

    @property
    def unsettled(self) -> list[float]:
        """The settings that fit in some tries and not in others."""
        return sorted({*self.fits} & {*self.lacks})


@dataclass(frozen=True)
class Limits:
    """How far each variant gets with one setting, all else being alike. `how`: by runs, or by pmexp.fit."""

    task: str
    system: str
    over: str
    how: str
    tries: dict[str, Tries]


def limits_of(experiment: Experiment, folder: Path | None) -> list[Limits]:
    """The limits along settings that answers of pmexp.fit are about, and along batch size and length in runs.

    `folder`: where answers lie. Raises UserError for a file there that is none.
    """
    limits = []
    for over in _SETTING_OF.values():
        for series in series_over(experiment.members, over):
            tries: dict[str, Tries] = defaultdict(Tries)
            for setting, member in series.members:
                if member.run.finals is not None:
                    tries[member.labels.variant].fits.append(setting)
                elif member.state == OUT_OF_MEMORY:
                    tries[member.labels.variant].lacks.append(setting)
            limits.append(Limits(series.task, series.system, over, "run", dict(tries)))
    answers = sorted(folder.glob("*.json")) if folder and folder.is_dir() else []
    return limits + _answered(answers, experiment.protocol.axis)


@dataclass(frozen=True)
class LoneFits:
    """Runs of the baseline that are `lacking` memory, those of the method that are `fitting` with the same
    labels, and runs of the baseline that say nothing: `unsettled`."""

    fitting: list[Labels] = field(default_factory=list)
    lacking: list[Labels] = field(default_factory=list)
    unsettled: list[Labels] = field(default_factory=list)


def lone_fits(experiment: Experiment) -> LoneFits:
    """Finds what fits with the method alone.

    A setting is unsettled where seeds of either side disagree, since what fits once lacks no memory by
    itself, and where the two runs of a seed had different devices.
    """
    protocol, lone = experiment.protocol, LoneFits()
    members = {member.labels: member for member in experiment.members}
    outcomes: dict[tuple[str, str, str], set[bool]] = defaultdict(set)  # whether it fits, by setting
    for at, member in members.items():
        if member.state in (FINISHED, DIVERGED, OUT_OF_MEMORY):
            outcomes[at.task, at.system, at.variant].add(member.state != OUT_OF_MEMORY)
    for at in sorted(members):
        if at.variant != protocol.baseline or members[at].state != OUT_OF_MEMORY:
            continue
        twin = members.get(Labels(at.task, at.system, protocol.method, at.seed))
        sides = (outcomes[at.task, at.system, side] for side in (protocol.baseline, protocol.method))
        if any(len(side) > 1 for side in sides) or (twin and _device(twin) != _device(members[at])):
            lone.unsettled.append(at)
            continue
        lone.lacking.append(at)
        if twin and twin.state in (FINISHED, DIVERGED):
            lone.fitting.append(twin.labels)
    return lone


def _device(member: Member) -> object:
    return member.run.environment.get("device")


def _answered(files: Sequence[Path], axis: ComparedLabel) -> list[Limits]:
    grouped: dict[tuple[str, str, str, str], dict[str, Tries]] = defaultdict(lambda: defaultdict(Tries))
    read = {str(file): _read(file) for file in files}
    # Answers that differ in another setting, such as the length of what is batched, are about other tasks.
    told_apart = distinguish({file: (one.labels, one.settings) for file, one in read.items()})
    for file, (_, _, over, how, probes) in read.items():
        at = along(axis, told_apart[file])
        for probe in probes:
            tries = grouped[at.task, at.system, over, how][at.variant]
            (tries.fits if probe["fits"] else tries.lacks).append(float(probe["value"]))
    return [Limits(*key, dict(tries)) for key, tries in grouped.items()]


class _Answer(NamedTuple):
    labels: Labels
    settings: dict[str, object]  # but that which was tried
    over: str
    how: str
    probes: list[dict[str, Any]]


def _read(file: Path) -> _Answer:
    try:
        with opened(file) as stream:
            answer = json.loads(stream.read().decode("utf-8"))
        told = answer["labels"]
        labels = Labels(told["task"], told["system"], told["variant"], int(told["seed"]))
        budget = f"{answer['budget_bytes'] / 2**30:.4g} GiB"
        how = f"{answer['method']}d for {budget}"
        probes = [{"value": probe["value"], "fits": probe["fits"]} for probe in answer["probes"]]
        over = _SETTING_OF[answer["what"]]
        settings = {key: value for key, value in answer.get("settings", {}).items() if key != over}
        return _Answer(labels, settings, over, how, probes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no answer of pmexp.fit ({error!r}): remove it or make it again") from None
