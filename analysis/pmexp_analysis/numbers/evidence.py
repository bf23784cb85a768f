"""What the runs of an experiment are evidence of, before any number of them is compared."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pmexp_analysis.numbers.conditions import (
    Conditions,
    Unlike,
    conditions_of_runs,
    known_members,
    mixed,
    of_several_machines,
    of_several_versions,
    seeds_said,
    unknown_conditions,
    unlike_pairs,
    unlike_sentences,
)
from pmexp_analysis.numbers.learned import Unlearned, never_learned
from pmexp_analysis.numbers.load import Loads, is_time, load_sentences, on_shared_cores, unlike_loads
from pmexp_analysis.numbers.shared_trainings import (
    MeasuredOnly,
    shared_remarks,
    shared_trainings,
    shared_warnings,
)
from pmexp_analysis.numbers.trainings import (
    GRADIENT,
    LOSS,
    BySeed,
    Place,
    leaders,
    logged,
    repeated_seeds,
    trainings_of,
)
from pmexp_analysis.sources.experiment import Experiment


@dataclass(frozen=True)
class Evidence:
    """What is known of each (task, system, variant), most of it by seed, before its numbers are compared.

    The empty Evidence knows nothing of any run: every pair counts, and no two trainings are known to be one.
    """

    baseline: str = ""
    trainings: Mapping[Place, BySeed] = field(default_factory=dict)
    leaders: Mapping[Place, str] = field(default_factory=dict)  # the variant that stands for one training
    unlike: Mapping[Place, Mapping[int, Unlike]] = field(default_factory=dict)
    loads: Mapping[Place, Mapping[int, Loads]] = field(default_factory=dict)  # those of unlike pairs
    conditions: Mapping[Place, Mapping[int, Conditions]] = field(default_factory=dict)
    unlearned: Mapping[Place, Mapping[int, Unlearned]] = field(default_factory=dict)
    # Groups of seeds that are one training.
    repeated: Mapping[Place, Sequence[Sequence[int]]] = field(default_factory=dict)
    learning: bool = True  # by its protocol, runs of the experiment are long enough to learn
    shared: Sequence[MeasuredOnly] = ()  # runs that measured alone, since another trained for them
    versions: Sequence[str] = ()  # warnings: several versions or machines, shared cores

    def apart(self, place: Place, *metrics: str) -> set[int]:
        """The seeds whose pair with the baseline ran under other conditions than these metrics need, or
        beside other work."""
        pairs = self.unlike.get(place, {})
        apart = {seed for seed, pair in pairs.items() if any(map(pair.matters_for, metrics))}
        return apart.union(self.loads.get(place, ())) if any(map(is_time, metrics)) else apart

    def mixed_in(self, place: Place, seeds: Collection[int]) -> str:
        """Says in what the runs of these seeds differ, so that their mean and spread are of several things;
        empty where data, precision and the like are the same."""
        told = {seed: own for seed, own in self.conditions.get(place, {}).items() if seed in seeds}
        said = mixed(told)
        return f"the runs of {place[2]} differ: {said}" if said else ""

    def is_proven(self, place: Place, seeds: Sequence[int]) -> bool:
        """Whether the trainings of these seeds are the baseline's, bit for bit and final weights included."""
        own, base = (self.trainings.get((*place[:2], name), {}) for name in (place[2], self.baseline))
        return all(s in own and s in base and own[s].is_proven_same(base[s]) for s in seeds) and bool(seeds)

    def repeated_in(self, place: Place, values: Mapping[int, float]) -> str:
        """Says which seeds of `place` are one training of which two share a value: that is one sample, taken
        twice; empty where none are."""
        groups = [[seed for seed in seeds if seed in values] for seeds in self.repeated.get(place, ())]
        same = [seeds for seeds in groups if len({values[seed] for seed in seeds}) < len(seeds)]
        return f"{place[2]} is one training in {' and in '.join(map(seeds_said, same))}" if same else ""

    def one_training_with(self, place: Place) -> str:
        """The variant that stands for this one, which is the same training; empty where none does."""
        leader = self.leaders.get(place, place[2])
        return "" if leader == place[2] else leader

    def for_costs(self) -> "Evidence":
        """Returns what claims on memory and speed need: of runs that are too short to learn, no score.

        A loss or a gradient that never moved stays: there, no step did what it was measured for.
        """
        return self if self.learning else replace(self, unlearned=self._that_stood_still())

    def _that_stood_still(self) -> dict[Place, dict[int, Unlearned]]:
        still = {
            place: {seed: told for seed, told in by_seed.items() if not told.by_score}
            for place, by_seed in self.unlearned.items()
        }
        return {place: by_seed for place, by_seed in still.items() if by_seed}

    def unlearned_of(self, task: str, system: str, variants: Sequence[str]) -> list[str]:
        """In words, which runs of these variants never learned, and how it shows."""
        return [
            f"{variant} never learned in {seeds_said(sorted(by_seed))} "
            f"({f'seed {min(by_seed)}: ' * (len(by_seed) > 1)}{by_seed[min(by_seed)].why})"
            for variant in variants
            if (by_seed := self.unlearned.get((task, system, variant)))
        ]

    def warnings(self) -> list[str]:
        """What a reader has to know first: several versions, unlike pairs, models that learned nothing."""
        named = self.for_costs()
        unlearned = [
            f"{task}, {system}: {said}; no criterion can pass on such a run."
            for task, system, variant in named.unlearned
            for said in named.unlearned_of(task, system, [variant])
        ]
        if too_short := sum(map(len, self.unlearned.values())) - sum(map(len, named.unlearned.values())):
            unlearned.append(
                f"By the protocol, runs are too short to learn, and {too_short} of them score no better than "
                "one answer for every sample: claims on memory and speed can pass on them, claims on scores "
                "and on unchanged training cannot."
            )
        unlike = unlike_sentences(self.unlike, self.baseline) + load_sentences(self.loads, self.baseline)
        unlike += [
            f"{task}, {system}: {said}; a mean over these seeds, or their standard deviation, is of no one "
            "thing, and no criterion on it can pass."
            for (task, system, variant), told in self.conditions.items()
            if (said := self.mixed_in((task, system, variant), told))
        ]
        repeated = [
            f"{task}, {system}: {variant} trained identically in {seeds_said(seeds)}, losses and "
            "weights: the seed changes nothing, or a folder was copied. They are one sample, and no "
            "criterion on a value that they share can pass."
            for (task, system, variant), groups in self.repeated.items()
            for seeds in groups
        ]
        return [*self.versions, *unlike, *repeated, *shared_warnings(self.shared), *unlearned]

    def remarks(self) -> dict[tuple[str, str], list[str]]:
        """(task, system) -> a sentence for each training that several variants are, or share."""
        several: dict[Place, list[str]] = defaultdict(list)
        for task, system, variant in sorted(self.leaders):
            if leader := self.one_training_with((task, system, variant)):
                several[task, system, leader].append(variant)
        groups: dict[tuple[str, str], list[str]] = defaultdict(list)
        for (task, system, leader), others in several.items():
            groups[task, system].append(self._one_training((task, system, leader), others))
        for at, said in shared_remarks(self.shared).items():
            groups[at] += said
        return dict(groups)

    def stands_for(self, task: str, system: str, variants: Sequence[str]) -> dict[str, list[str]]:
        """Variant -> those others of `variants` that are one training with it and that it stands for."""
        versions: dict[str, list[str]] = defaultdict(list)
        for variant in variants:
            if leader := self.one_training_with((task, system, variant)):
                versions[leader].append(variant)
        return dict(versions)

    def _one_training(self, place: Place, others: Sequence[str]) -> str:
        first = self.trainings[place]
        sides = [self.trainings[*place[:2], other] for other in others]
        seeds = sorted({seed for side in sides for seed in side if seed in first})
        proven = all(
            first[seed].is_proven_same(side[seed]) for side in sides for seed in side if seed in first
        )
        names = f"{', '.join([place[2], *others[:-1]])} and {others[-1]}"
        how = "the losses of every logged step agree"
        how += ", and the final weights bit for bit" if proven else "; final weights were not recorded by all"
        return (
            f"{names} trained identically in {seeds_said(seeds)}: {how}. They count as one "
            "training and are drawn once."
        )


def evidence_of(experiment: Experiment) -> Evidence:
    """The evidence of an experiment, in one pass over its runs and their losses."""
    protocol = experiment.protocol
    losses, gradients = (logged(experiment.finished, metric) for metric in (LOSS, GRADIENT))
    trainings = trainings_of(experiment, losses)
    return Evidence(
        baseline=protocol.baseline,
        trainings=trainings,
        leaders=leaders(trainings, (protocol.baseline, protocol.method)),
        unlike=unlike_pairs(experiment),
        loads=unlike_loads(experiment),
        conditions=conditions_of_runs(experiment),
        repeated=repeated_seeds(trainings),
        shared=shared_trainings(experiment, losses),
        unlearned=never_learned(experiment, losses, gradients),
        learning=protocol.learning,
        versions=[
            *of_several_versions(experiment),
            *of_several_machines(experiment),
            *unknown_conditions(experiment),
            *on_shared_cores(known_members(experiment)),
        ],
    )
