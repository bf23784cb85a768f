"""Reading run folders: what counts, what is missing and why, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pmexp.errors import UserError
from pmexp_analysis.sources.experiment import Missing
from pmexp_analysis.sources.long_tables import COLUMNS
from run_folders import Runs

Line = Callable[[str, float | None, int], str]


def missing(runs: Runs) -> dict[tuple[str, int], Missing]:
    return {(run.variant, run.seed): run for run in runs.experiment().missing}


def refusal(runs: Runs) -> str:
    with pytest.raises(UserError) as refused:
        runs.experiment()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_long_table_and_the_values_hold_every_record(runs: Runs) -> None:
    runs.finished("packed", 7, {"test/accuracy": 0.9, "val/loss": None}, losses=[2.0, 1.5])
    experiment = runs.experiment()
    assert tuple(experiment.curves.columns) == COLUMNS
    labels = ("net-digits-packed-7", "net/digits", "plain", "packed", 7)
    assert [tuple(row) for row in experiment.curves.itertuples(index=False)] == [
        (*labels, "train/loss", "nats", "min", 1.0, 2.0),
        (*labels, "train/loss", "nats", "min", 2.0, 1.5),
    ]
    (section,) = experiment.values
    assert list(section.metrics) == ["test/accuracy", "val/loss"]
    assert section.metrics["test/accuracy"].by_variant == {"packed": {7: 0.9}}
    assert section.metrics["val/loss"].finite("packed") == {}
    assert experiment.environment == {"host": ["host1"], "threads": [4]}


def test_a_resumed_runs_later_record_counts(runs: Runs, line: Line) -> None:
    path = runs.finished("packed", 0, {"test/accuracy": 0.9}, losses=[2.0, 1.0])
    with (path / "journal.jsonl").open("a") as journal:
        journal.write(line("train/loss", 0.75, 2) + line("train/loss", None, 3))
    curves = runs.experiment().curves
    assert curves["value"].tolist()[:2] == [2.0, 0.75]
    assert curves["value"].isna().tolist() == [False, False, True]


def test_exactly_a_cut_last_line_is_ignored(runs: Runs, line: Line) -> None:
    path = runs.finished("packed", 0, {"test/accuracy": 0.9})
    whole = line("train/loss", 2.0, 1) + line("train/loss", 1.5, 2)
    for end in range(1, len(line("train/loss", 1.5, 2))):
        (path / "journal.jsonl").write_text(whole[:-end])
        assert runs.experiment().curves["value"].tolist() == [2.0]


@pytest.mark.parametrize("damage", ['{"met', "", "{}", "3", '{"metric": "train/loss", "value": "x"}'])
def test_a_damaged_line_elsewhere_is_named(runs: Runs, line: Line, damage: str) -> None:
    path = runs.finished("packed", 0, {"test/accuracy": 0.9})
    lines = [line("train/loss", 2.0, 1), damage + "\n", line("train/loss", 1.0, 3)]
    (path / "journal.jsonl").write_text("".join(lines))
    assert f"{path / 'journal.jsonl'}, line 2 is no" in refusal(runs)


def test_two_records_on_one_line_are_damage(runs: Runs, line: Line) -> None:
    path = runs.finished("packed", 0, {"test/accuracy": 0.9})
    first = line("train/loss", 2.0, 1)
    (path / "journal.jsonl").write_text(f"{first.strip()},{first}{first}")
    assert "line 1 is no line of a journal" in refusal(runs)


def test_unfinished_runs_are_named_with_their_end(runs: Runs, line: Line) -> None:
    runs.finished("packed", 0, {"test/accuracy": 0.9})
    runs.unfinished(
        "packed", 1, failure={"status": "failed", "error": "ValueError: bad", "log": "here/log.txt"}
    )
    runs.unfinished("packed", 2, failure={"status": "interrupted", "error": "SIGTERM at step 4", "log": ""})
    runs.unfinished("packed", 3, [line("train/loss", 2.0, 1), line("train/loss", 1.0, 41), '{"metr'])
    runs.unfinished("packed", 4)
    runs.plan(("packed-3", "packed", 3), ("never", "packed", 5), ("net-digits-packed-0", "packed", 0))
    named = missing(runs)
    assert {seed: run.why for (_, seed), run in named.items()} == {
        1: "failed: ValueError: bad (log: here/log.txt)",
        2: "interrupted: SIGTERM at step 4",
        3: "stale: no summary (its journal ends at step 41)",
        4: "stale: no summary (its journal has no line yet)",
        5: "planned, never started",
    }
    assert named["packed", 1] == Missing(
        "net/digits", "plain", "packed", 1, "packed-1", named["packed", 1].why
    )
    assert named["packed", 5].run_id == "never"


def test_seeds_that_another_variant_has_are_named_once(runs: Runs) -> None:
    runs.sample("test/accuracy", baseline=[0.9, 0.9, 0.9], packed=[0.9])
    runs.unfinished("packed", 2)
    named = missing(runs)
    assert set(named) == {("packed", 1), ("packed", 2)}
    assert (named["packed", 1].run_id, named["packed", 2].run_id) == (None, "packed-2")
    assert named["packed", 1].why == "no run of this seed, there is one of baseline"


def test_other_folders_are_no_runs(runs: Runs) -> None:
    runs.finished("packed", 0, {"test/accuracy": 0.9})
    (runs.folder / ".sweep").mkdir()
    (runs.folder / "multirun.yaml").write_text("x: 1\n")
    assert runs.experiment().missing == []


def test_two_results_with_the_same_labels_are_refused(runs: Runs) -> None:
    runs.finished("packed", 0, {"test/accuracy": 0.9}, run_id="one")
    runs.finished("packed", 0, {"test/accuracy": 0.8}, run_id="two")
    assert "runs one and two are both net/digits / plain / packed / seed 0" in refusal(runs)


def test_an_experiment_without_a_result_says_what_there_is(runs: Runs) -> None:
    runs.unfinished("packed", 1, failure={"status": "failed", "error": "ValueError: bad", "log": ""})
    assert "no finished run" in refusal(runs)
    assert "1 unfinished, the first: packed seed 1, failed: ValueError: bad" in refusal(runs)


def test_an_unknown_experiment_names_the_known_ones(runs: Runs) -> None:
    assert "there is none yet" in refusal(runs)
    (runs.root / "other").mkdir(parents=True)
    (runs.root / "other" / "plan.json").write_text("[]")
    assert f"no experiment 'demo' in {runs.root} (there are: other)" in refusal(runs)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", "[]"),
        ("summary.json", '{"metrics": {}}'),
        ("summary.json", '{"metrics": {"test/loss": "x"}, "labels": {}}'),
        ("../plan.json", '[{"run_id": "a"}]'),
        ("../plan.json", "{}"),
    ],
)
def test_an_unreadable_file_is_named(runs: Runs, file: str, content: str) -> None:
    path = runs.finished("packed", 0, {"test/accuracy": 0.9})
    (path / file).resolve().write_text(content)
    assert Path(file).name in refusal(runs)


def test_an_unfinished_run_that_nothing_describes_is_named_as_unknown(runs: Runs) -> None:
    runs.finished("packed", 0, {"test/accuracy": 0.9})
    path = runs.unfinished("packed", 1)
    (path / "config.yaml").write_text("seed: 1\n")
    run = missing(runs)["unknown", -1]
    assert run.run_id == path.name and "it has no labels" in run.why


def test_a_metric_nobody_describes_is_refused(runs: Runs) -> None:
    path = runs.finished("packed", 0, {"test/unheard_of": 0.9})
    assert "'test/unheard_of' is not in" in refusal(runs)
    told = {
        "metric": "test/unheard_of",
        "value": 1.0,
        "unit": "furlong",
        "direction": "max",
        "step": 1,
        "time": 0,
    }
    (path / "journal.jsonl").write_text(json.dumps(told) + "\n")
    (section,) = runs.experiment().values
    assert [metric.unit for metric in section.metrics.values()] == ["furlong"]
