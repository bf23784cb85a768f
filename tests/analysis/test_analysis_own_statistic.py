"""A statistic of somebody's own judges pairs by its own numbers, where the reader of the report allows its code."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pmexp.errors import UserError
from pmexp.protocol import CriterionConfig, ProtocolConfig, Statistic, check_written
from pmexp_analysis.criteria import Judged, judge
from pmexp_analysis.numbers.own_statistics import allow
from pmexp_analysis.report import main
from run_folders import Runs

CODE = """
import numpy as np
def saved(method, baseline):
    return 1 - method / baseline
def one(method, baseline):
    return np.array([1.0])
def nothing(method, baseline):
    return np.full_like(method, np.nan)
def of_one(method):
    return method
def octaves(method, baseline):
    return np.round(np.log2(method / baseline))
def fails(method, baseline):
    raise ValueError("not of these")
"""


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "my_statistics.py").write_text(CODE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_statistics", raising=False)
    yield
    allow([])


def recorded(runs: Runs, function: str) -> None:
    claim: dict[str, Any] = {
        "metric": "memory/peak_bytes", "statistic": "own", "function": f"my_statistics.{function}",
        "comparison": "at_least", "threshold": 0.2,
    }  # fmt: skip
    for seed in range(4):
        for variant, value in (("baseline", 1000.0 + seed), ("pm-drop", 700.0 + 2 * seed)):
            protocol = {"method": "pm-drop", "criteria": {"saving": claim}}
            runs.finished(variant, seed, {"memory/peak_bytes": value}, protocol=protocol)


def judged(runs: Runs, function: str) -> Judged:
    recorded(runs, function)
    (one,) = judge(runs.experiment(), [])
    return one


def test_it_is_computed_of_the_pairs_and_named_with_its_code(runs: Runs) -> None:
    allow(["my_statistics.saved"])
    one = judged(runs, "saved")
    assert one.result == "pass" and one.value == pytest.approx(0.3 - 0.0025, abs=1e-3)
    assert one.statistic == "my_statistics.saved"
    assert "by my_statistics.saved (my_statistics of a folder, sha256 " in one.why


def test_equal_numbers_are_named_with_their_code_too(runs: Runs) -> None:
    allow(["my_statistics.octaves"])
    one = judged(runs, "octaves")
    assert one.why.startswith("-1 by my_statistics.octaves (my_statistics of a folder, sha256 ")
    assert one.why.endswith(") in each of 4 pairs")


def test_a_function_in_no_module_is_refused_where_it_is_written() -> None:
    mine = CriterionConfig(metric="memory/peak_bytes", statistic=Statistic.own, function="my_statistic.saved")
    with pytest.raises(
        UserError, match=r"^protocol\.criteria\.mine\.function: my_statistic\.saved: there is no"
    ):
        check_written(ProtocolConfig(criteria={"mine": mine}))


def test_nobody_imports_it_unless_the_reader_says_so(runs: Runs) -> None:
    one = judged(runs, "saved")
    assert one.result == "not measured" and "my_statistics" not in sys.modules
    assert one.why.endswith("is code of somebody's own; allow it by statistics=my_statistics.saved")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("one", "gives an array of shape (1,) for 4 pairs; return a number a pair"),
        ("fails", "my_statistics.fails: fails (ValueError: not of these, at"),
        ("of_one", "my_statistics.of_one: too many positional arguments; it is of_one(method)"),
    ],
)
def test_one_that_fails_is_one_line(
    function: str, said: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(runs, function)
    named = f"statistics=my_statistics.{function}"
    assert main(["name=demo", f"runs_dir={runs.root}", f"out={tmp_path / 'out'}", named]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_numbers_that_are_none_are_not_measured(runs: Runs) -> None:
    allow(["my_statistics.nothing"])
    one = judged(runs, "nothing")
    assert one.result == "not measured" and "no number for some of the pairs" in one.why


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"statistic": Statistic.own}, "statistic=own needs function=mypkg.my_statistic"),
        ({"statistic": Statistic.mean, "function": "a.b"}, "statistic=mean has no function"),
        ({"statistic": Statistic.own, "function": "b"}, "'b' is no import path"),
    ],
)
def test_a_criterion_that_cannot_be_judged_is_refused(given: dict[str, Any], said: str) -> None:
    criterion = CriterionConfig(metric="memory/peak_bytes", **given)
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        ProtocolConfig(criteria={"mine": criterion})
