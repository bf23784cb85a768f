"""A method or baseline that no run is of: the report says which it looked for, what is there, and what to type."""

import json
from pathlib import Path
from typing import Any

import pytest

from pmexp_analysis.report import main
from run_folders import Runs

CRITERIA = {
    "less": {"metric": "memory/saved_bytes", "statistic": "relative_change", "threshold": -0.1},
    "small": {"metric": "memory/saved_bytes", "statistic": "mean", "threshold": 1e9},
    "no-divergence": {"statistic": "diverged"},
}
PROTOCOL = {"method": "pm-drop", "criteria": CRITERIA}


def finished(runs: Runs, variant: str, *bits: int, protocol: Any = PROTOCOL) -> None:
    """Finished runs of three seeds: of each value of `variant.bits`, or without that setting."""
    for seed in range(3):
        for settings in [{"variant.bits": each} for each in bits] or [{}]:
            values = {"memory/saved_bytes": 100.0 + seed, "test/accuracy": 0.5}
            runs.finished(variant, seed, values, settings=settings, protocol=protocol)


def told(runs: Runs, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, dict[str, Any]]:
    """What the terminal shows, and report.json."""
    out = runs.root.parent / "reports"
    keys = ["demo", "--runs-dir", str(runs.root), "--out", str(out), "--figures", "0", *options]
    assert main(keys) == 0
    return capsys.readouterr().out, json.loads(Path(out, "demo", "report.json").read_text())


OF_OTHERS = (
    "method=pm-drop: no run here is of it, they are of 'baseline', 'inback'; "
    "choose method=inback, or run pm-drop"
)
OF_TWO = (
    "method=pm-drop: pm-drop is 2 variants here: 'pm-drop bits=1', 'pm-drop bits=4'; "
    "choose method='pm-drop bits=1' or another of them"
)


@pytest.mark.parametrize(
    ("variant", "bits", "said"), [("inback", (), OF_OTHERS), ("pm-drop", (1, 4), OF_TWO)]
)
def test_a_method_that_no_run_is_of(
    variant: str, bits: tuple[int, ...], said: str, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(runs, "baseline")
    finished(runs, variant, *bits)
    shown, content = told(runs, capsys)
    assert shown.splitlines()[0] == said == content["warnings"][0]
    assert content["verdict"] == {
        "result": "not measured",
        "sentence": f"Are all claims met? Not measured: {said}.",
    }
    assert [one["why"] for one in content["criteria"]] == [said] * 3
    assert [part["why"] for one in content["criteria"] for part in one["parts"]] == [said] * 3
    typed = f"{variant} bits=1" if bits else variant
    shown, content = told(runs, capsys, f"method={typed}")
    assert {one["result"] for one in content["criteria"]} <= {"pass", "fail"}
    assert f"The method was chosen after the runs: {typed} instead of pm-drop." in shown


def test_a_baseline_that_is_two_variants(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    finished(runs, "baseline", 1, 4)
    finished(runs, "pm-drop")
    said = "baseline=baseline: baseline is 2 variants here: 'baseline bits=1', 'baseline bits=4'; choose"
    shown, content = told(runs, capsys)
    assert shown.startswith(said)
    less, *of_the_method = content["criteria"]
    assert less["why"].startswith(said) and less["result"] == "not measured"
    assert [one["result"] for one in of_the_method] == ["pass", "pass"], "which need no baseline"


def test_where_there_is_nothing_to_choose_it_is_to_be_run(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(runs, "baseline")
    said = "method=pm-drop: no run here is of it, they are of 'baseline'; run pm-drop"
    assert told(runs, capsys)[1]["criteria"][0]["why"] == said


def test_a_method_whose_runs_have_not_finished_is_not_absent(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(runs, "baseline")
    runs.plan(("planned", "pm-drop", 0))
    assert "no run here is of it" not in told(runs, capsys)[0]


def test_without_criteria_no_method_is_looked_for(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    finished(runs, "baseline", protocol=None)
    finished(runs, "inback", protocol=None)
    assert told(runs, capsys)[1]["warnings"] == []


def test_the_terminal_says_that_protocols_differ(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    finished(runs, "baseline")
    finished(runs, "pm-drop", protocol={**PROTOCOL, "criteria": {}})
    shown, content = told(runs, capsys)
    (said,) = content["protocol"]["remarks"]
    assert "3 of 6 runs were started under another protocol" in said and said in shown.splitlines()
