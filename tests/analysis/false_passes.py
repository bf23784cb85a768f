"""Error rates of every criterion on pairs, at its threshold, and many random small experiments that must not break.

As a command it prints the whole table: `python tests/analysis/false_passes.py [trials] [experiments]`.
"""

import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from pmexp.command.compose import compose
from pmexp.command.schema import conf_folder
from pmexp.errors import UserError
from pmexp.protocol import Bound, CriterionConfig, ProtocolConfig, Statistic
from pmexp_analysis.criteria import answer, judge
from pmexp_analysis.criteria.estimates import Sides, limit_of
from pmexp_analysis.criteria.judge import as_judged
from pmexp_analysis.criteria.pairs import judge_pairs
from pmexp_analysis.criteria.plan import as_text, plans
from pmexp_analysis.numbers.fits import limits_of
from pmexp_analysis.pages.content import as_json, content_of
from pmexp_analysis.pages.document import as_markdown
from pmexp_analysis.pages.paper import appendix, main_table
from pmexp_analysis.sources.assemble import assemble
from pmexp_analysis.sources.experiment import Labels, Run

Values = npt.NDArray[np.float64]
SEEDS, STEPS = (3, 5, 10), (20, 100, 1000)  # samples of a test split: scores are multiples of 1/n
SCORE, STEP_TIME = "test/accuracy", "speed/step_ms"
_OF_PAIRS = {
    Statistic.mean,
    Statistic.times_smaller,
    Statistic.relative_change,
    Statistic.difference,
    Statistic.difference_in_sigma,
}


def shipped() -> dict[str, CriterionConfig]:
    """Every criterion of conf/criteria, as a protocol has it."""
    names = sorted(file.stem for file in (conf_folder() / "criteria").glob("*.yaml"))
    return compose([f"criteria@protocol.criteria=[{','.join(names)}]"]).protocol.criteria


@dataclass(frozen=True)
class Case:
    """A criterion, judged of `n` seeds whose runs vary as `spread` says; `step` is that of scores, 0 for none."""

    name: str
    n: int
    step: float
    spread: float

    @property
    def words(self) -> str:
        """The text with which the case's line in the table begins."""
        kind = f"multiples of {self.step:g}" if self.step else "normal"
        return f"{self.name:<18} {self.n:>2} seeds, {kind}, spread {self.spread:g}"


def cases() -> list[Case]:
    """Every criterion on pairs with every number of seeds, with normal values, and with scores of every step."""
    made = []
    for name, criterion in shipped().items():
        if criterion.statistic in _OF_PAIRS:
            scored = (criterion.metric or "").endswith("score")
            steps = [1 / samples for samples in STEPS] if scored else []
            made += [
                Case(name, n, step, spread) for n, step, spread in product(SEEDS, [0.0, *steps], SPREADS)
            ]
    return made


SPREADS = (0.003, 0.02)  # standard deviations of a score, or of the logarithm of a cost


def drawn(case: Case, criterion: CriterionConfig, trials: int, seed: int) -> tuple[Values, Values]:
    """(method, baseline), shape (trials, n) each, whose true statistic lies at the threshold.

    Scores are counts of right answers over the step's samples: their means are exact, whatever the rounding.
    """
    random = np.random.default_rng(seed)
    metric = SCORE if (criterion.metric or "").endswith("score") else STEP_TIME
    _, limit = limit_of(as_judged(criterion), criterion.metric if metric == STEP_TIME else SCORE)
    shape = (trials, case.n)
    if metric == SCORE:
        in_sigmas = criterion.statistic is Statistic.difference_in_sigma
        lower = limit * _sigma(case) if in_sigmas else -abs(limit)
        sides = (random.normal(mean, case.spread, shape) for mean in (0.9 + lower, 0.9))
        ours, theirs = (_on_grid(side, case.step, random) if case.step else side for side in sides)
        return ours, theirs
    reference = 1.0 if criterion.against is None else criterion.against
    factor = {
        Statistic.relative_change: 1 + limit,
        Statistic.times_smaller: 1 / limit if limit else 1.0,
        Statistic.mean: limit,
    }[criterion.statistic]
    base = reference * np.exp(random.normal(0, case.spread, shape))
    noise = random.normal(0, case.spread, shape)
    if criterion.statistic is Statistic.mean:
        return limit * (1 + noise), base
    against = np.full(shape, reference) if criterion.against is not None else base
    return against * factor * np.exp(noise), base


def _sigma(case: Case) -> float:
    """The true standard deviation of the baseline's scores, to which the step adds."""
    random = np.random.default_rng(0)
    values = random.normal(0.9, case.spread, 200_000)
    return float((_on_grid(values, case.step, random) if case.step else values).std())


def _on_grid(values: Values, step: float, random: np.random.Generator) -> Values:
    """Each value on one of the two multiples of `step` beside it, by chance, so that its mean stays."""
    below = np.floor(values / step)
    return step * (below + (random.random(values.shape) < values / step - below))


def false_passes(case: Case, criterion: CriterionConfig, trials: int, seed: int = 0) -> int:
    """How many of `trials` experiments at the threshold pass."""
    judged = as_judged(criterion)
    ours, theirs = drawn(case, criterion, trials, seed)
    scored = (criterion.metric or "").endswith("score")
    metric = SCORE if scored else criterion.metric or ""
    if criterion.drop_from is not None:  # the values are drops, and a smaller one is better
        ours, theirs = -ours, -theirs
    every = [
        Sides("t", "s", dict(enumerate(mine)), dict(enumerate(base)), metric, False)
        for mine, base in zip(ours.tolist(), theirs.tolist(), strict=True)
    ]
    return sum(part.result == "pass" for part in judge_pairs(judged, every))


METRICS = (SCORE, "val/accuracy", "ood/accuracy", "fgsm/accuracy", "val/loss", "train/loss", STEP_TIME,
           "speed/samples_per_s", "memory/peak_bytes", "memory/saved_bytes", "memory/mask_bytes_per_element",
           "check/gradient_error", "test/f1", "grad/norm")  # fmt: skip


def random_runs(random: np.random.Generator) -> list[Run]:
    """A small experiment with ties, zeros, negative numbers, NaN, missing seeds, metrics and runs."""
    kind = random.integers(5)
    scale = 10.0 ** random.integers(-3, 4)

    def value() -> float:
        drawn = random.random()
        if drawn < 0.06:
            return math.nan
        if drawn < 0.2:
            return 0.0
        if kind == 0:
            return float(random.integers(0, 4)) / 4  # ties
        if kind == 1:
            return scale
        if kind == 2:
            return float(random.normal()) * scale
        return scale * float(np.exp(random.normal(0, 0.1)))

    lengths = [128, 256, 512, 1024][: random.choice([1, 1, 1, 1, 3, 4])]
    known = [metric for metric in METRICS if random.random() < 0.8]
    runs = []
    for variant, seed, length in product(
        ("baseline", "pm-drop", "4bit"), range(random.integers(1, 6)), lengths
    ):
        fate = random.random()
        if fate < 0.1:
            continue
        labels = Labels("net/digits", "plain", variant, seed)
        settings = {"dataset.max_length": length, "seed": seed, "train.lr": 0.1}
        told = {"run_id": f"{variant}-{seed}-{length}", "labels": labels, "settings": settings}
        if fate < 0.2:
            runs.append(Run(**told, state="out of memory" if fate < 0.15 else "failed", why="lost"))
            continue
        finals = {metric: value() for metric in known if random.random() < 0.95}
        if random.random() < 0.5:
            finals["progress/computed_length"] = float(max(length, 512))
        runs.append(Run(**told, finals=finals))
    return runs


def judged_once(random: np.random.Generator, criteria: dict[str, CriterionConfig], pages: bool) -> str:
    """Judges one random experiment as the report does and returns the overall result.

    pages: every text of the report is made, too.
    """
    runs = random_runs(random)
    if not any(run.finals is not None for run in runs):
        return "no finished run"
    experiment = assemble("demo", "here", runs)
    experiment = experiment.__class__(**{**vars(experiment), "protocol": ProtocolConfig(criteria=criteria)})
    judged = judge(experiment, limits_of(experiment, None))
    assert as_text(plans(experiment))
    if pages:
        content = content_of(experiment, "now", None, None)
        assert as_markdown(content) and main_table(content) and appendix(content) and as_json(content)
    return answer(judged, "pm-drop")[0]


def other_comparisons(criteria: dict[str, CriterionConfig]) -> dict[str, CriterionConfig]:
    """The criteria, and each statistic of pairs with each comparison that it takes."""
    by_comparison = dict(criteria)
    for statistic, comparison in product(sorted(_OF_PAIRS | {Statistic.p_worse}, key=str), Bound):
        try:
            one = CriterionConfig(metric=SCORE, statistic=statistic, comparison=comparison, threshold=0.1)
            ProtocolConfig(criteria={"it": one})
        except UserError:  # this statistic has no margin
            continue
        by_comparison[f"{statistic.name} {comparison.name}"] = one
    return by_comparison


def main(trials: int, experiments: int) -> None:
    """Prints the rate of false passes of every case, and what became of the random experiments."""
    criteria = shipped()
    worst = 0.0
    for place, case in enumerate(cases()):
        rate = false_passes(case, criteria[case.name], trials, place) / trials
        worst = max(worst, rate)
        print(f"{case.words}: {100 * rate:.1f} % pass", flush=True)
    print(f"the most: {100 * worst:.1f} %, standard error {100 * (0.05 * 0.95 / trials) ** 0.5:.1f} %")
    began = time.perf_counter()
    every = other_comparisons(criteria)
    results = Counter(
        judged_once(np.random.default_rng((1, place)), every, pages=place % 10 == 0)
        for place in range(experiments)
    )
    print(f"{experiments} random experiments in {time.perf_counter() - began:.0f} s: {dict(results)}")


if __name__ == "__main__":
    main(*(int(text) for text in [*sys.argv[1:], "2000", "10000"][:2]))
