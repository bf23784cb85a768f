"""Under which conditions runs were measured, and for which metrics the two of a pair have to share them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pmexp.protocol import ComparedLabel
from pmexp.shown import counted
from pmexp_analysis.numbers.trainings import Place, is_result, place_of
from pmexp_analysis.sources.experiment import Experiment, Member

# Keys of a run's environment. The first matter for every metric, the second for what a machine takes: speed,
# memory, energy. A score is the same question on another CPU; a time is not.
_OF_EVERY_METRIC = (
    "data_digest",
    "ood_data_digest",
    "model_digest",
    "precision",
    "attention",
    "float32_matmul",
    "float32_convolution",
    "deterministic",
)
_OF_COST = (
    "device",
    "driver",
    "cpu",
    "threads",
    "data_workers",
    "dropout_backend",
    "peak_memory_source",
    "python",
    "version_pmexp",
    "version_torch",
    "version_transformers",
    "git_commit",
    "git_changed",
    "git_diff",
    "other_conditions",
)
_OF_THE_SYSTEM = ("precision", "attention")  # what is compared where systems or arms are
_VERSIONS = {
    "version_pmexp": "pmexp",
    "git_commit": "commit",
    "git_diff": "uncommitted changes",
    "version_torch": "torch",
    "version_transformers": "transformers",
    "python": "Python",
}
_MACHINES = {"device": "device", "driver": "driver", "cpu": "processor", "threads": "threads"}
_NOT_RECORDED = "not recorded"
# How runs of older versions computed, and those that say nothing of it.
_BEFORE_RECORDED = {
    "float32_matmul": "highest",
    "float32_convolution": "tf32",  # torch's own choice on CUDA
    "deterministic": "no",
    "other_conditions": "none",
    "git_diff": "none",
}
_COMMIT, _COMMIT_DIGITS = 40, 12


Conditions = tuple[str, ...]  # values of _OF_EVERY_METRIC


@dataclass(frozen=True)
class Unlike:
    """A pair of one seed whose runs were measured under different conditions."""

    seed: int
    differing: Mapping[str, tuple[str, str]]  # key -> the variant's value, the baseline's

    def matters_for(self, metric: str) -> bool:
        """Whether the pair says nothing about `metric`."""
        return self.spoils_all or not is_result(metric)

    @property
    def spoils_all(self) -> bool:
        """Whether data, precision, attention or arithmetic differ: then not even scores can be compared."""
        return any(key in _OF_EVERY_METRIC for key in self.differing)


def unlike_pairs(experiment: Experiment) -> dict[Place, dict[int, Unlike]]:
    """(task, system, variant) -> seed -> how its pair with the baseline differs in what matters.

    A run of which the source tells no environment at all differs in nothing that is known.
    """
    protocol = experiment.protocol
    finished = {
        (m.labels.task, m.labels.system, m.labels.variant, m.labels.seed): m
        for m in known_members(experiment)
    }
    exempt = () if protocol.axis is ComparedLabel.variant else _OF_THE_SYSTEM
    keys = [key for key in (*_OF_EVERY_METRIC, *_OF_COST) if key not in exempt]
    unlike: dict[Place, dict[int, Unlike]] = defaultdict(dict)
    for (task, system, variant, seed), member in finished.items():
        base = finished.get((task, system, protocol.baseline, seed))
        if base is not None and variant != protocol.baseline:
            differing = _differing(member, base, keys)
            if differing:
                unlike[place_of(member)][seed] = Unlike(seed, differing)
    return dict(unlike)


def conditions_of_runs(experiment: Experiment) -> dict[Place, dict[int, Conditions]]:
    """(task, system, variant) -> seed -> what has to be alike for any metric, as its run recorded it."""
    conditions: dict[Place, dict[int, Conditions]] = defaultdict(dict)
    for member in known_members(experiment):
        told = tuple(_told(member.run.environment, key) for key in _OF_EVERY_METRIC)
        conditions[place_of(member)][member.labels.seed] = told
    return dict(conditions)


def mixed(by_seed: Mapping[int, Conditions]) -> str:
    """Says in what the runs of these seeds differ that matters for every metric; empty where in nothing."""
    said = []
    for key, told in zip(_OF_EVERY_METRIC, zip(*by_seed.values(), strict=True), strict=False):
        seeds: dict[str, list[int]] = defaultdict(list)
        for seed, value in zip(by_seed, told, strict=True):
            seeds[value].append(seed)
        if len(seeds) > 1:
            each = (f"{_short(value)} in {seeds_said(sorted(own))}" for value, own in seeds.items())
            said.append(f"{key} is {' and '.join(each)}")
    return "; ".join(said)


def known_members(experiment: Experiment) -> list[Member]:
    """The finished runs whose environment the source tells."""
    return [m for m in experiment.members if m.run.finals is not None and m.run.environment]


def _differing(member: Member, base: Member, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    own, theirs = member.run.environment, base.run.environment
    if own == theirs:  # most are, and this is quicker than key by key
        return {}
    values = {key: (_told(own, key), _told(theirs, key)) for key in keys}
    return {key: pair for key, pair in values.items() if pair[0] != pair[1]}


def _told(environment: Mapping[str, str | float], key: str) -> str:
    return str(environment.get(key, _BEFORE_RECORDED.get(key, _NOT_RECORDED)))


def of_several_versions(experiment: Experiment) -> list[str]:
    """A sentence that names the versions of the runs where these are several of any package; else nothing."""
    said = _several(experiment, _VERSIONS)
    return [f"The runs of this report were made with several versions: {said}."] if said else []


def of_several_machines(experiment: Experiment) -> list[str]:
    """A sentence that names the machines of the runs where these are several; else nothing."""
    said = _several(experiment, _MACHINES)
    means = "means over seeds of speed, memory and energy mix them, differences within pairs do not"
    return [f"The runs of this report are of several machines: {said}; {means}."] if said else []


def _several(experiment: Experiment, keys: Mapping[str, str]) -> str:
    """Those of `keys` of which the runs have several values, by their words, with how many runs have each."""
    environments = [member.run.environment for member in known_members(experiment)]
    counts = {
        words: Counter(_told(environment, key) for environment in environments) for key, words in keys.items()
    }
    return "; ".join(f"{words} {_listed(several)}" for words, several in counts.items() if len(several) > 1)


def unknown_conditions(experiment: Experiment) -> list[str]:
    """A sentence where the source does not tell the environment of all finished runs; else nothing."""
    finished = sum(member.run.finals is not None for member in experiment.members)
    known = len(known_members(experiment))
    if known == finished:
        return []
    return [
        f"The environment of {counted(finished - known, 'run')} of {finished} is not recorded in this "
        "source, so whether their pairs ran on similar machines and versions, and whether their scores are "
        "above chance, was not checked; the run folders record it."
    ]


def _listed(versions: Mapping[str, int]) -> str:
    return " and ".join(f"{_short(version)} ({counted(n, 'run')})" for version, n in sorted(versions.items()))


def _short(value: str) -> str:
    """A commit by its first digits; any other value as it is."""
    return value[:_COMMIT_DIGITS] if len(value) == _COMMIT and value.isalnum() else value


def unlike_sentences(unlike: Mapping[Place, Mapping[int, Unlike]], baseline: str) -> list[str]:
    """A sentence for each way in which pairs of a variant ran under other conditions than the baseline."""
    sentences = []
    for (task, system, variant), by_seed in unlike.items():
        alike: dict[tuple[tuple[str, tuple[str, str]], ...], list[int]] = defaultdict(list)
        for seed, one in sorted(by_seed.items()):
            alike[tuple(one.differing.items())].append(seed)
        for differing, seeds in alike.items():
            named = ", ".join(
                f"{key} {_short(own)} versus {_short(theirs)}" for key, (own, theirs) in differing
            )
            what = "" if by_seed[seeds[0]].spoils_all else " of speed, memory and energy"
            sentences.append(
                f"{task}, {system}: {variant} and {baseline} ran under different conditions in "
                f"{seeds_said(seeds)} ({named}); these pairs are excluded from comparisons{what}."
            )
    return sentences


def seeds_said(seeds: Sequence[int]) -> str:
    """Seeds by number: seed 3, seeds 0, 1 and 2."""
    numbers = [str(seed) for seed in seeds]
    return f"seed {numbers[0]}" if len(numbers) == 1 else f"seeds {', '.join(numbers[:-1])} and {numbers[-1]}"
