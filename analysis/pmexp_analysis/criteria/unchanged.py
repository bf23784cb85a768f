"""The criterion that training is unchanged, by proof: the same masks give the same losses and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pmexp.protocol import CriterionConfig
from pmexp.shown import counted, first_three
from pmexp_analysis.criteria.result import TaskResult, decide
from pmexp_analysis.numbers.conditions import seeds_said
from pmexp_analysis.numbers.evidence import Evidence
from pmexp_analysis.numbers.trainings import LossRecord, place_of
from pmexp_analysis.sources.experiment import Experiment, Member

_RUN_ONE = "one run of variant=pm-drop-same-masks with a seed of the baseline would settle it"
_WITHOUT_FLIPS = (None, 0, 0.0, "0", "0.0")  # text, as MLflow keeps it


@dataclass(frozen=True)
class _Pair:
    """A run with the baseline's own masks and the baseline's run of its seed."""

    member: Member
    own: LossRecord
    base: LossRecord

    @property
    def name(self) -> str:
        return f"{self.member.labels.variant}, seed {self.member.labels.seed}"


def judge_unchanged(
    criterion: CriterionConfig, task: str, system: str, experiment: Experiment, evidence: Evidence
) -> TaskResult:
    """How many runs that draw the baseline's own masks differ from the baseline's run of their seed.

    One that differs under other conditions (another processor, another torch) proves nothing. Passing needs
    the digest of the final weights on both sides.
    """
    pairs = _pairs(task, system, experiment, evidence)
    if isinstance(pairs, str):
        return TaskResult(task, system, "not measured", pairs)
    n = len(pairs)
    different = [pair for pair in pairs if _difference(pair)]
    if unlike := [
        pair for pair in different if evidence.unlike.get(place_of(pair.member), {}).get(_seed(pair))
    ]:
        why = (
            f"{unlike[0].name}: {_difference(unlike[0])}, but it ran under different conditions "
            "from the baseline"
        )
        return TaskResult(task, system, "inconclusive", f"{why}; run the two on one machine", n=n)
    if different:
        result = decide(len(different), len(different), criterion.comparison, criterion.threshold)
        why = f"{different[0].name}: {_difference(different[0])}"
        return TaskResult(task, system, result, why, float(len(different)), n=n)
    if open_ends := [pair for pair in pairs if _lacking(pair)]:
        return TaskResult(task, system, "inconclusive", f"{open_ends[0].name}: {_lacking(open_ends[0])}", n=n)
    result = decide(0.0, 0.0, criterion.comparison, criterion.threshold)
    return TaskResult(task, system, result, _proof(pairs, experiment.protocol.baseline), 0.0, n=n)


def _pairs(task: str, system: str, experiment: Experiment, evidence: Evidence) -> list[_Pair] | str:
    """The pairs that can prove it, or in words what is lacking."""
    baseline = experiment.protocol.baseline
    here = [m for m in experiment.members if (m.labels.task, m.labels.system) == (task, system)]
    finished = [member for member in here if member.run.finals is not None]
    base = {member.labels.seed: member for member in finished if member.labels.variant == baseline}
    same = [member for member in finished if member.labels.variant != baseline and has_same_masks(member)]
    if not same:
        return f"no finished run uses the same dropout masks as the baseline (variant.rng=torch); {_RUN_ONE}"
    if other := [member for member in base.values() if not draws_torchs_masks(member.run.settings)]:
        return f"{baseline} does not draw the masks of nn.Dropout itself (run {other[0].run.run_id})"
    alike = [m for m in same if m.labels.seed in base and m.words.system == base[m.labels.seed].words.system]
    if not alike:
        seeds = seeds_said(sorted({member.labels.seed for member in same}))
        return f"{baseline} has no finished run of {seeds} under the same system; {_RUN_ONE}"
    return [
        _Pair(member, *(evidence.trainings[place_of(each)][member.labels.seed] for each in sides))
        for member in alike
        if (sides := (member, base[member.labels.seed]))
    ]


def has_same_masks(member: Member) -> bool:
    """Whether a run that is not the baseline's claims to draw the masks that nn.Dropout draws."""
    settings = member.run.settings
    return str(settings.get("variant.rng")) == "torch" and draws_torchs_masks(settings)


def draws_torchs_masks(settings: Mapping[str, object]) -> bool:
    """Whether the settings, as far as they are recorded, are of masks as nn.Dropout draws and keeps them."""
    dropout, rng = settings.get("variant.dropout", "stock"), settings.get("variant.rng")
    if dropout == "packed" or rng == "torch":
        return rng == "torch" and settings.get("variant.flip_rate") in _WITHOUT_FLIPS
    return dropout == "stock"


def _seed(pair: _Pair) -> int:
    return pair.member.labels.seed


def _difference(pair: _Pair) -> str:
    """Where the two trainings differ first; empty where nothing that both recorded does."""
    step = pair.own.losses.first_difference(pair.base.losses)
    if step is not None:
        return f"its training loss differs from the baseline's from step {step:g} on"
    if pair.own.weights and pair.base.weights and pair.own.weights != pair.base.weights:
        return "its loss equals the baseline's at every logged step, but its final weights differ"
    return ""


def _lacking(pair: _Pair) -> str:
    """Why equal losses are no proof; empty where they are."""
    if not pair.own.digest:
        return "no loss was logged"
    if np.isnan(pair.own.losses.values).any():
        return "its losses equal the baseline's but are not finite: both diverged"
    if not (pair.own.weights and pair.base.weights):
        return "its loss equals the baseline's at every logged step, but final weights were not recorded"
    return ""


def _proof(pairs: Sequence[_Pair], baseline: str) -> str:
    steps = min(pair.own.losses.steps.size for pair in pairs)
    named = first_three([pair.name for pair in pairs], between="; ")
    return (
        f"{named}: the losses of all {counted(steps, 'logged step')} and the final weights equal those of "
        f"{baseline}, bit for bit"
    )
