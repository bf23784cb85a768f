"""Numbers and sentences as people read them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pmexp.protocol import CriterionConfig, ProtocolConfig
from pmexp_analysis.criteria import TaskResult
from pmexp_analysis.criteria.result import combined
from pmexp_analysis.numbers.cells import number, percent, probability
from pmexp_analysis.numbers.compare import Comparison, Row, comparisons, rows
from pmexp_analysis.numbers.compared_cells import change, mean_std
from pmexp_analysis.numbers.scores import resolve
from pmexp_analysis.numbers.sections import Section, sections
from pmexp_analysis.pages.headline import headlines
from pmexp_analysis.pages.tables import comparison_table, remarks, result_table, terminal
from pmexp_analysis.sources.folders import load_runs
from run_folders import Runs


def section_of(runs: Runs, baseline: str = "baseline") -> Section:
    values = runs.experiment().values
    (section,) = sections(rows(values), comparisons(values, ProtocolConfig(baseline=baseline)), baseline)
    return section


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (4.0, "4"),
        (0.125, "0.125"),
        (123456.7, "123457"),
        (-0.00123456, "-0.001235"),
        (3e-7, "3e-07"),
        (100.0, "100"),
        (0.95134, "0.9513"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("mean", "std", "unit", "text"),
    [
        (0.95134, 0.00612, "fraction", "0.9513±0.0061"),
        (3 * 2.0**20, 0.0, "bytes", "3"),
        (81.2, 12.7, "ms", "81±13"),
        (2.0, None, "nats", "2"),
        (None, None, "nats", "-"),
    ],
)
def test_mean_std(mean: float | None, std: float | None, unit: str, text: str) -> None:
    row = Row("t", "s", "v", "m", unit, "min", 1, [0], [], mean, std, mean, mean)
    assert mean_std(row) == text


def test_percent_and_probability() -> None:
    assert (percent(-0.4), percent(0.0312), percent(None)) == ("-40.0%", "+3.1%", "-")
    assert (probability(0.00099), probability(0.5), probability(None)) == ("<0.001", "0.500", "-")


def test_the_result_table_has_the_baseline_first_and_changes_in_percent(demo: Runs) -> None:
    table = result_table(section_of(demo))
    assert table.headings == [
        "variant", "n", "test accuracy", "mask B/element", "saved MiB", "process MiB", "step ms", "samples/s",
        "saved change", "samples/s change",
    ]  # fmt: skip
    base, packed = table.cells
    assert base[:5] == ["baseline", "3", "0.910±0.010", "4", "100"]
    assert (base[8], base[9]) == ("-", "-")
    assert packed[:2] + packed[3:5] == ["packed", "3", "0.125", "60"]
    assert (packed[8], packed[9]) == ("-40.0%", "-4.9%")  # means 485 and 510 samples/s


def test_any_baseline_comes_first(demo: Runs) -> None:
    assert [cells[0] for cells in result_table(section_of(demo, "packed")).cells] == ["packed", "baseline"]


def test_the_headline_is_computed(demo: Runs) -> None:
    (sentence,) = headlines(section_of(demo))
    assert sentence.startswith(
        "packed stores 0.125 bytes of dropout mask per element versus 4 (32.0x smaller),"
        " cuts the memory saved for the backward pass by 40.0%; test accuracy 0.923±0.015 versus 0.910±0.010 (Holm p="
    )
    assert "throughput -4.9% (" in sentence


def test_the_headline_admits_that_nothing_is_compared(demo: Runs) -> None:
    assert headlines(section_of(demo, baseline="absent")) == [
        "There is no finished run of the baseline 'absent', so nothing is compared."
    ]
    assert "nothing to compare with: no finished run of 'absent'" in terminal(
        [section_of(demo, "absent")], [], "", []
    )


def test_an_equal_score_is_said_to_be_no_proof(runs: Runs) -> None:
    for variant, losses in (("baseline", [2.0, 1.0]), ("packed", [2.0, 1.5])):
        runs.finished(variant, 0, {"test/accuracy": 0.9}, losses)
    assert remarks(section_of(runs)) == [
        "packed and baseline have an equal score in every pair, in test/accuracy; which does not prove equal "
        "training."
    ]


@pytest.mark.parametrize(
    ("unit", "told", "text"),
    [
        ("ms", {"mean_difference": 1.0, "relative_difference": -0.1234}, "-12.3%"),
        ("ms", {"mean_difference": 12.3456}, "+12.3 ms"),
        ("fraction", {"mean_difference": -0.0123456}, "-0.0123"),
        ("bytes", {"mean_difference": 1.5 * 2**20}, "+1.5 MiB"),
        ("ms", {}, "-"),
    ],
)
def test_a_change_is_relative_where_the_values_have_a_ratio(
    unit: str, told: dict[str, float], text: str
) -> None:
    assert change(Comparison("t", "s", "m", "v", "b", unit, "min", 3, {}, **told)) == text  # type: ignore[arg-type]
    assert change(None) == "-"


def test_of_several_tasks_of_one_result_the_one_with_the_least_room_is_said() -> None:
    criterion = CriterionConfig(claim="less is kept", metric="memory/saved_bytes", threshold=1e9)
    without, far, near = (
        TaskResult(f"net/{name}", "plain", "inconclusive", name, room=room)
        for name, room in (("without", None), ("far", 0.5), ("near", -0.5))
    )
    assert combined("less", criterion, [without, far, near]).why.startswith("net/near: near (of 3 tasks: ")
    assert combined("less", criterion, [without, far]).why.startswith("net/far: ")


def test_the_comparison_table_names_the_seeds_a_side_lacks(runs: Runs) -> None:
    runs.sample("memory/saved_bytes", baseline=[2.0**20] * 3, packed=[2.0**19] * 2)
    (cells,) = comparison_table(section_of(runs)).cells
    assert cells[:8] == [
        "saved for backward [MiB]", "packed", "better", "2", "-0.5", "-0.5 to -0.5", "-0.5 to -0.5", "-50.0%",
    ]  # fmt: skip
    assert cells[-1] == "constant difference; packed has no value of seed 2"


def test_the_terminal_lists_missing_runs_by_name(demo: Runs) -> None:
    criterion = CriterionConfig(claim="less is kept", metric="memory/saved_bytes", threshold=1e9)
    (judged,) = [combined("less", criterion, [TaskResult("net/digits", "plain", "pass", "because")])]
    text = terminal([section_of(demo)], load_runs(demo.root, "demo").missing, "Yes.", [judged])
    lines = text.splitlines()
    assert lines[0] == "net/digits / plain"
    assert len({len(line) for line in lines[1:5]}) == 1
    assert (
        "net/digits / plain / packed seed 3 (packed-3): failed: MemoryError: no room (log: log.txt)" in text
    )
    assert "1 missing run:" in lines
    assert lines[-2:] == ["Yes.", "  pass         less is kept: because"]


@pytest.mark.parametrize(
    ("finals", "scores"),
    [
        (["test/accuracy", "test/f1", "test/loss", "val/accuracy"], ["test/accuracy", "test/f1"]),
        (["val/accuracy", "test/loss"], ["val/accuracy"]),
        (["test/loss", "val/loss"], ["test/loss"]),
        (["memory/peak_bytes"], []),
    ],
)
def test_the_main_metrics_are_scores_before_losses(runs: Runs, finals: list[str], scores: list[str]) -> None:
    runs.finished("baseline", 0, dict.fromkeys(finals, 0.5))
    assert section_of(runs).scores == scores


@pytest.mark.parametrize("told", [list, str])  # a list as text is how MLflow keeps it
@pytest.mark.parametrize(
    ("listed", "scores"),
    [
        (["entity_f1", "accuracy"], ["test/entity_f1", "test/accuracy"]),
        (["mypkg.own", "accuracy"], ["test/mypkg.own", "test/accuracy"]),
        (["perplexity"], ["test/perplexity", "test/loss"]),
        (["mse", "pearson"], ["test/mse", "test/loss"]),
    ],
)
def test_the_first_of_a_tasks_metrics_is_its_score(
    runs: Runs, told: Callable[[list[str]], object], listed: list[str], scores: list[str]
) -> None:
    """It is what selects the weights, and not what comes first by name."""
    finals = dict.fromkeys(("test/loss", *(f"test/{name}" for name in reversed(listed))), 0.5)
    runs.finished("baseline", 0, finals, settings={"dataset.metrics": told(listed)}, run_id="one")
    assert section_of(runs).scores == scores
    assert resolve("score", list(runs.experiment().values[0].metrics)) == scores[0]


def test_a_reason_that_the_first_lines_give_is_not_given_again() -> None:
    line = "baseline=b: no run here is of it, they are of 'm'; run b"
    judged: Any = [SimpleNamespace(result="not measured", claim="faster", why=f"{line}; one measurement")]
    shown = terminal([], [], "Not settled.", judged, [line])
    assert shown.count(line) == 1 and shown.endswith("faster: see the first lines; one measurement")
