"""A bound on the wrong end of a metric, which a method meets the better, the worse it is, is said first of all."""

from typing import Any

import pytest

from run_folders import Runs

ACCURACY, BYTES = "test/accuracy", "memory/peak_tensor_bytes"


def warnings(runs: Runs, **claim: Any) -> list[str]:
    protocol = {"method": "pm-drop", "criteria": {"mine": claim}}
    for seed in range(3):
        for variant, worse in (("baseline", 0), ("pm-drop", 1)):
            finals = {
                ACCURACY: 0.9 - worse * (0.2 + seed / 50),
                BYTES: (100.0 + seed) * (1 + worse),
                "val/accuracy": 0.9,
            }
            runs.finished(variant, seed, finals, protocol=protocol)
    content = runs.content()
    return [line for line in content.warnings if line.startswith("Criterion mine")]


@pytest.mark.parametrize(
    ("metric", "statistic", "comparison", "threshold", "better"),
    [
        ("score", "difference", "at_most", 0.01, "more of test accuracy"),
        ("score", "mean", "at_most", 0.9, "more of test accuracy"),
        ("score", "p_worse", "at_most", 0.05, "more of test accuracy"),
        (BYTES, "relative_change", "at_least", -0.05, "less of"),
        (BYTES, "times_smaller", "at_most", 2.0, "less of"),
    ],
)
def test_a_bound_that_the_worst_method_meets_is_named(
    metric: str, statistic: str, comparison: str, threshold: float, better: str, runs: Runs
) -> None:
    (line,) = warnings(runs, metric=metric, statistic=statistic, comparison=comparison, threshold=threshold)
    assert better in line and f"{statistic} {comparison}" in line


@pytest.mark.parametrize(
    ("comparison", "threshold", "said"),
    [
        ("at_least", -1, "from -1 to 1, so that at_least -1 cannot fail."),
        ("no_worse", 1, "from -1 to 1, so that no_worse 1 cannot fail."),
        ("at_least", 2, "from -1 to 1, so that at_least 2 cannot be met."),
    ],
)
def test_a_bound_beyond_what_a_score_can_be_is_named(
    comparison: str, threshold: float, said: str, runs: Runs
) -> None:
    claim = {"metric": "score", "statistic": "difference", "threshold": threshold}
    (line,) = warnings(runs, comparison=comparison, **claim)
    assert line == f"Criterion mine says nothing: the difference of test/accuracy is {said}"


@pytest.mark.parametrize("comparison", ["at_least", "at_most"])
def test_of_a_drop_less_is_better(comparison: str, runs: Runs) -> None:
    claim = {"metric": ACCURACY, "drop_from": "val/accuracy", "statistic": "difference", "threshold": 0.01}
    said = warnings(runs, comparison=comparison, **claim)
    assert ["less of the drop to test accuracy" in line for line in said] == [True] * (
        comparison == "at_least"
    )


@pytest.mark.parametrize(
    ("metric", "statistic", "comparison", "threshold"),
    [
        ("score", "difference", "at_least", -0.01),
        ("score", "difference", "no_worse", 0.01),
        ("score", "p_worse", "at_least", 0.05),
        (BYTES, "relative_change", "at_most", -0.05),
        (BYTES, "times_smaller", "at_least", 2.0),
        ("memory/peak_bytes", "mean", "at_most", 1e9),  # no run has it
    ],
)
def test_a_bound_on_the_worse_end_is_not(
    metric: str, statistic: str, comparison: str, threshold: float, runs: Runs
) -> None:
    assert (
        warnings(runs, metric=metric, statistic=statistic, comparison=comparison, threshold=threshold) == []
    )
