"""The plan before a sweep: what so many seeds settle, checked by drawing experiments of that size."""

import re

import numpy as np
import pytest

from pmexp.protocol import Bound as Is
from pmexp.protocol import CriterionConfig, ProtocolConfig, Statistic
from pmexp_analysis.criteria.estimates import Sides
from pmexp_analysis.criteria.pairs import judge_pairs
from pmexp_analysis.criteria.plan import SEEDS, Plan, as_text, plans
from pmexp_analysis.report import main
from pmexp_analysis.sources.experiment import Experiment
from run_folders import Runs

RATE = "speed/samples_per_s"
CRITERION = CriterionConfig(
    metric=RATE, statistic=Statistic.relative_change, comparison=Is.no_worse, threshold=0.02
)
NOISE = 0.02  # the standard deviation of the logarithm of a run's throughput


def experiment(runs: Runs, **criteria: CriterionConfig) -> Experiment:
    loaded = runs.experiment()
    return Experiment(**{**vars(loaded), "protocol": ProtocolConfig(criteria=criteria)})


def planned(runs: Runs, method: bool) -> Plan:
    logs = np.array([-1.0, 1.0, -1.0, 1.0, 0.0]) * NOISE
    rates = {"baseline": list(100 * np.exp(logs))} | ({"pm-drop": [100.0] * 5} if method else {})
    runs.sample(RATE, **rates)
    (one,) = plans(experiment(runs, throughput=CRITERION))
    return one


@pytest.mark.parametrize("place", range(len(SEEDS)))
def test_differences_as_large_as_said_are_settled_in_four_of_five_sweeps(runs: Runs, place: int) -> None:
    """Over plans by five pairs each; a sweep's true spread is not the one that its plan saw."""
    one = planned(runs, method=True)
    assert one.why.startswith("from the spread of 5 pairs; about ")
    passes, fails = (float(text) / 100 for text in re.findall(r"([+-][\d.]+) %", one.cells[place]))
    assert fails < -0.02 < passes
    n, trials, random = SEEDS[place], 250, np.random.default_rng(place)
    for change, result in ((passes, "pass"), (fails, "fail")):
        away = np.log1p(change) - np.log1p(-0.02)  # by a plan that saw NOISE itself
        settled = 0
        for seen in random.chisquare(4, trials) / 4:
            logs = np.log1p(-0.02) + away * seen**0.5 + random.normal(0, NOISE, n)
            ours = dict(enumerate((100 * np.exp(logs)).tolist()))
            sides = Sides("t", "s", ours, dict.fromkeys(ours, 100.0), RATE, False)
            settled += judge_pairs(CRITERION, [sides])[0].result == result
        # It is 0.8, less three standard errors and the two digits that are said.
        assert 0.72 < settled / trials < 0.9


def test_the_baseline_alone_is_enough_to_plan_by(runs: Runs) -> None:
    one = planned(runs, method=False)
    assert one.why.startswith("from the spread of 5 runs of the baseline; about 20 seeds pass it")


def test_what_no_seeds_settle_is_said(runs: Runs) -> None:
    runs.sample(RATE, baseline=[100.0], **{"pm-drop": [100.0]})
    counted = CriterionConfig(metric="memory/saved_bytes", statistic=Statistic.relative_change)
    growth = CriterionConfig(
        metric="memory/saved_bytes", statistic=Statistic.growth_exponent, over="dataset.max_length"
    )
    told = {one.name: one.why for one in plans(experiment(runs, a=counted, b=growth, c=CRITERION))}
    assert told == {
        "a": "no run records memory/saved_bytes",
        "b": "settled by more settings, not by more seeds",
        "c": "at least two runs of the baseline are needed to plan by",
    }


def test_the_command_prints_the_plan_and_writes_nothing(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.sample(RATE, baseline=[100.0, 101.0, 99.0], **{"pm-drop": [100.0, 100.5, 99.5]})
    out = runs.root.parent / "reports"
    assert main(["demo", "plan=true", f"runs_dir={runs.root}", f"out={out}"]) == 0
    assert capsys.readouterr().out.startswith("What a number of seeds can settle") and not out.exists()
    text = as_text(plans(experiment(runs, throughput=CRITERION)))
    assert "throughput (net/digits, plain): from the spread of 3 pairs" in text
    assert text.count(" seeds: passes from ") == len(SEEDS)
