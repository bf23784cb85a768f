"""Which protocol counts: the first run's, with every change and choice named."""

import json
from pathlib import Path
from typing import Any

import pytest

from pmexp.errors import UserError
from pmexp.protocol import ComparedLabel
from pmexp_analysis.numbers.fits import limits_of
from pmexp_analysis.sources.experiment import Experiment
from pmexp_analysis.sources.folders import load_runs
from pmexp_analysis.sources.protocols import Choice
from run_folders import Runs

LESS = {"metric": "memory/saved_bytes", "statistic": "relative_change", "threshold": -0.1}


def protocol(**more: Any) -> dict[str, Any]:
    return {"question": "Less?", "method": "packed", "criteria": {"less": LESS}, **more}


def load(runs: Runs, **choice: Any) -> Experiment:
    return load_runs(runs.root, "demo", Choice(**choice))


def refusal(runs: Runs, **choice: Any) -> str:
    with pytest.raises(UserError) as refused:
        load(runs, **choice)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def started(runs: Runs, *protocols: Any) -> None:
    """Runs that started one after the other, with names in the opposite order."""
    for place, told in enumerate(protocols):
        runs.finished(
            "packed", place, {"test/loss": 1.0}, run_id=f"{9 - place}", time=100.0 + place, protocol=told
        )


def test_the_protocol_of_the_run_that_started_first_counts(runs: Runs) -> None:
    eased = {**LESS, "threshold": -0.01}
    started(
        runs,
        protocol(),
        protocol(),
        protocol(criteria={"less": eased}),
        protocol(criteria={"less": eased}),
        protocol(method="other", criteria={}),
    )
    loaded = load(runs)
    assert loaded.protocol.criteria["less"].threshold == -0.1
    assert (loaded.protocol.question, loaded.protocol.method) == ("Less?", "packed")
    assert loaded.remarks == [
        "2 of 5 runs were started under another protocol (less differs); the report uses the first one.",
        "1 of 5 runs were started under another protocol (method, less differs); the report uses the first one.",
    ]


def test_runs_of_before_protocols_have_none(runs: Runs) -> None:
    started(runs, None)
    loaded = load(runs)
    assert (loaded.protocol.criteria, loaded.protocol.axis, loaded.remarks) == ({}, ComparedLabel.variant, [])


def test_a_recorded_threshold_that_no_method_could_meet_costs_no_run(runs: Runs) -> None:
    started(runs, protocol(criteria={"less": {**LESS, "threshold": -5}}))
    assert load(runs).protocol.criteria["less"].threshold == -5


def test_what_the_reader_chooses_is_named(runs: Runs, tmp_path: Path) -> None:
    started(runs, protocol())
    file = tmp_path / "mine.yaml"
    file.write_text("mine: {metric: test/loss, threshold: 2}\n")
    loaded = load(runs, criteria=file, baseline="b", method="m")
    assert (loaded.protocol.baseline, loaded.protocol.method, list(loaded.protocol.criteria)) == (
        "b",
        "m",
        ["mine"],
    )
    assert loaded.remarks == [
        f"The criteria were chosen after the runs, in {file}.",
        "The baseline was chosen after the runs: b instead of baseline.",
        "The method was chosen after the runs: m instead of packed.",
    ]
    assert load(runs).protocol.method == "packed"
    assert load(runs, method="packed").remarks == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no criteria by name"),
        ("- 3", "holds no criteria by name"),
        ("a: [", "cannot be read as YAML: while parsing"),
        (
            "a: {metric: test/loss}\nb: {metric: test/loss}\na: {metric: score}",
            "'a' is given twice, in lines 1 and 3",
        ),
        ("a: 3", "holds no usable protocol"),
        ("a: {metric: test/loss, treshold: 3}", "treshold"),
        ("a: {metric: test/lost}", "protocol.criteria.a.metric: 'test/lost' is no metric"),
        ("a: {metric: test/loss, statistic: median}", "median"),
        (
            "a: {metric: test/loss, statistic: relative_change, threshold: -5}",
            "a.threshold: -5 must be at least -1 and at most 1",
        ),
        ("\xff", "mine.yaml"),
    ],
)
def test_criteria_that_cannot_be_used_are_refused_in_one_line(
    runs: Runs, tmp_path: Path, content: str, said: str
) -> None:
    started(runs, protocol())
    file = tmp_path / "mine.yaml"
    file.write_text(content, encoding="latin-1")
    text = refusal(runs, criteria=file)
    assert text.startswith(f"criteria={file}") and said in text
    assert "No such file" in refusal(runs, criteria=tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "told", [3, [1], "text", {"criteria": 3}, {"criteria": {"a": 3}}, {"axis": "sideways"}, {"unheard": 1}]
)
def test_a_damaged_protocol_is_refused_in_one_line(runs: Runs, told: Any) -> None:
    started(runs, told)
    said = refusal(runs)
    assert "no finished run" in said and "protocol" in said.partition("no finished run")[2]


@pytest.mark.parametrize("told", [3, [1], {"criteria": 3}])
def test_a_damaged_protocol_costs_its_own_run_alone(runs: Runs, told: Any) -> None:
    started(runs, protocol(), told)
    (missing,) = load(runs).missing
    assert missing.run_id == "8" and "protocol" in missing.why


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"labels": {"task": "a"}, "probes": []}', '{"labels": 3, "budget_bytes": 1}'],
)
def test_a_file_that_is_no_answer_of_fit_is_refused_in_one_line(runs: Runs, content: str) -> None:
    started(runs, protocol())
    (runs.folder / "fit").mkdir()
    (runs.folder / "fit" / "x.json").write_text(content)
    with pytest.raises(
        UserError, match=r"x.json is no answer of pmexp.fit .*remove it or make it again"
    ) as refused:
        limits_of(load(runs), runs.folder / "fit")
    assert "\n" not in str(refused.value)


def test_a_run_without_memory_is_a_result_that_is_named(runs: Runs) -> None:
    started(runs, protocol())
    runs.out_of_memory("baseline", 0)
    loaded = load(runs)
    (member,) = (m for m in loaded.members if m.labels.variant == "baseline")
    assert (member.state, member.run.finals) == ("out of memory", None)
    (missing,) = loaded.missing
    assert (missing.state, missing.why) == ("out of memory", "out of memory: CUDA out of memory")
    assert json.loads((runs.folder / "9" / "summary.json").read_text())["protocol"]["method"] == "packed"
