"""Losses and scores that are no finite number: they select no weights, and everything that shows a run says so."""

import json
import logging

import pytest

from hydra_plugins.pmexp_launchers.sweep import recorded_outcome
from pmexp.command.compose import compose_run
from pmexp.run_folder.found import find_runs
from pmexp.runs import table
from small_runs import TINY_VIT, Runs

SHORT = [*TINY_VIT, "dataset=digits", "tracking=off", "train.max_steps=4", "train.evaluate_every=1"]
OF_LATE = "own_methods.finite_at_last"


@pytest.fixture(autouse=True)
def _evaluations_are_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("own_methods.EVALUATIONS", [])


def test_a_score_that_is_nan_never_selects_and_is_on_record(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = [*SHORT, f"dataset.metrics=[{OF_LATE},accuracy]"]
    with caplog.at_level(logging.WARNING):
        code, _, err = runs.train(*arguments)
    assert code == 0, err
    (told,) = runs.summaries().values()
    assert told["metrics"][f"val/{OF_LATE}"] == 3  # the first that is a number, at step 3
    said = f"val/{OF_LATE} at step 1 (2 of 4 values)"
    assert told["environment"]["not_finite"] == said and "selection" not in told["environment"]
    assert caplog.text.count(f"val/{OF_LATE} is no finite number at step 1") == 1
    (run,) = find_runs(runs.folder, "default")
    assert "not finite: " + said in table.run_lines([run])[1]
    assert json.loads(table.runs_json([run]))[0]["not_finite"] == said
    outcome = recorded_outcome(compose_run([*arguments, f"runs_dir={runs.folder}"]))
    assert outcome is not None and outcome.warning == "not finite: " + said and not outcome.error


def test_where_no_score_is_a_number_the_last_weights_are_tested(runs: Runs) -> None:
    code, _, err = runs.train(*SHORT, "dataset.metrics=[own_methods.never,accuracy]", "train.max_steps=2")
    assert code == 0, err
    (told,) = runs.summaries().values()
    assert told["metrics"]["val/own_methods.never"] is None and told["metrics"]["test/accuracy"] >= 0
    assert told["environment"]["selection"] == (
        "none: val/own_methods.never was no finite number in any evaluation; the last step's weights were tested"
    )
    assert "test/own_methods.never at step 2 (1 of 1 values)" in told["environment"]["not_finite"]


def test_a_loss_that_diverges_is_said(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    code, _, err = runs.train(*SHORT, "variant=own", "variant.apply=own_methods.diverging")
    assert code == 0, err
    (told,) = runs.summaries().values()
    assert told["environment"]["not_finite"].startswith("train/loss at step 1 (")
    assert "train/loss is no finite number at step 1" in caplog.text
