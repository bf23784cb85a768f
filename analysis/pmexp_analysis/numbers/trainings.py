"""Which runs are one training: by their losses at every logged step, and by their final weights."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pmexp.protocol import OF_TRAINING
from pmexp_analysis.numbers.stats import Array
from pmexp_analysis.sources.experiment import Experiment, Member

BySeed = dict[int, "LossRecord"]
Place = tuple[str, str, str]  # task, system, variant
LOSS, GRADIENT = "train/loss", "grad/norm"


class Logged(NamedTuple):
    """The values of one metric of a run, by step; both of shape (steps,), and NaN for what was not finite."""

    steps: Array
    values: Array

    @property
    def digest(self) -> bytes:
        """A BLAKE2 digest of all bits of steps and values; empty where nothing was logged."""
        if not self.steps.size:
            return b""
        return hashlib.blake2b(self.steps.tobytes() + self.values.tobytes(), digest_size=16).digest()

    def first_difference(self, other: "Logged") -> float | None:
        """The first step at which the two differ, or that one of them lacks; None where they are equal."""
        n = min(self.steps.size, other.steps.size)
        same = (self.steps[:n] == other.steps[:n]) & (
            (self.values[:n] == other.values[:n]) | (np.isnan(self.values[:n]) & np.isnan(other.values[:n]))
        )
        if not same.all():
            place = int(np.argmin(same))
            return float(min(self.steps[place], other.steps[place]))
        rest = [logged.steps[n] for logged in (self, other) if logged.steps.size > n]
        return float(rest[0]) if rest else None


NOTHING_LOGGED = Logged(np.empty(0), np.empty(0))


class LossRecord(NamedTuple):
    """What tells one training from another: its losses, its final weights and its results."""

    losses: Logged
    digest: bytes  # that of `losses`, which is quicker to compare
    weights: str  # digest of the final weights; empty where the run did not record it
    results: Mapping[str, float]  # metric -> final value

    def is_same(self, other: "LossRecord") -> bool:
        """Whether all that both recorded agrees: losses at every step, final weights, and every result."""
        return (
            bool(self.digest)
            and self.digest == other.digest
            and (self.weights == other.weights or not (self.weights and other.weights))
            and all(
                is_equal(value, other.results[name])
                for name, value in self.results.items()
                if name in other.results and is_result(name)
            )
        )

    def is_proven_same(self, other: "LossRecord") -> bool:
        """Whether they are the same and both recorded their final weights: then it is bit for bit."""
        return bool(self.weights and other.weights) and self.is_same(other)


def is_result(metric: str) -> bool:
    """Whether `metric` follows from the training: the same training has the same value."""
    return metric.startswith(OF_TRAINING)


def is_equal(value: float, other: float) -> bool:
    """Whether two values are one number, or both not finite."""
    return value == other or (math.isnan(value) and math.isnan(other))


def logged(members: Sequence[Member], metric: str) -> dict[str, Logged]:
    """Run id -> what each run that logged `metric` logged of it.

    A run resumed from a checkpoint writes the steps after it a second time: the later value counts.
    """
    losses = {}
    for run in (member.run for member in members):
        curve = run.curve
        if metric not in curve.metrics:
            continue
        steps, values = (np.asarray(column, np.float64) for column in (curve.steps, curve.values))
        if [*curve.metrics].count(metric) < len(curve.metrics):
            rows = [row for row, name in enumerate(curve.metrics) if name == metric]
            steps, values = steps[rows], values[rows]
        if not (steps[1:] > steps[:-1]).all():
            order = np.argsort(steps, kind="stable")
            steps, values = steps[order], values[order]
            is_last = np.append(steps[1:] != steps[:-1], True)
            steps, values = steps[is_last], values[is_last]
        losses[run.run_id] = Logged(steps, values)
    return losses


def trainings_of(experiment: Experiment, losses: Mapping[str, Logged]) -> dict[Place, BySeed]:
    """(task, system, variant) -> seed -> the training of each finished run that trained to its end."""
    by_place: dict[Place, BySeed] = defaultdict(dict)
    for member in experiment.members:
        if member.run.finals is not None and not member.shared_with:
            by_place[place_of(member)][member.labels.seed] = _training(member, losses)
    return dict(by_place)


def _training(member: Member, losses: Mapping[str, Logged]) -> LossRecord:
    run = member.run
    own = losses.get(run.run_id, NOTHING_LOGGED)
    return LossRecord(own, own.digest, run.weights_sha256, run.finals or {})


def place_of(member: Member) -> Place:
    """Where a run stands in a report, but for its seed."""
    return member.labels.task, member.labels.system, member.labels.variant


def leaders(trainings: Mapping[Place, BySeed], first: Sequence[str]) -> dict[Place, str]:
    """(task, system, variant) -> the variant that stands for it, itself where no other does.

    Variants are one training where the runs of all seeds that both have are the same, and there is one.
    first: variants that lead before others, in this order; the others follow by name.
    """
    variants_of: dict[tuple[str, str], list[str]] = defaultdict(list)
    for task, system, variant in trainings:
        variants_of[task, system].append(variant)
    leaders: dict[Place, str] = {}
    for (task, system), variants in variants_of.items():
        leading: list[str] = []
        for variant in sorted(variants, key=lambda name: (*(name != one for one in first), name)):
            own = trainings[task, system, variant]
            same = (one for one in leading if are_same(own, trainings[task, system, one]))
            leader = next(same, variant)
            leaders[task, system, variant] = leader
            if leader == variant:
                leading.append(variant)
    return leaders


def repeated_seeds(trainings: Mapping[Place, BySeed]) -> dict[Place, list[list[int]]]:
    """(task, system, variant) -> groups of seeds whose trainings are proven to be one; none without such."""
    repeated: dict[Place, list[list[int]]] = {}
    for place, by_seed in trainings.items():
        alike: dict[tuple[bytes, str], list[int]] = defaultdict(list)
        for seed, training in sorted(by_seed.items()):
            if training.digest and training.weights:
                alike[training.digest, training.weights].append(seed)
        if groups := [seeds for seeds in alike.values() if len(seeds) > 1]:
            repeated[place] = groups
    return repeated


def are_same(own: BySeed, other: BySeed) -> bool:
    """Whether the trainings of all seeds that both have are the same, and there is such a seed."""
    common = own.keys() & other.keys()
    return bool(common) and all(own[seed].is_same(other[seed]) for seed in common)
