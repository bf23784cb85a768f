"""A report says in which settings what is compared differs: a name does not tell what was typed beside it."""

from typing import Any

from pmexp_analysis.numbers.compared_settings import compared_settings
from pmexp_analysis.pages.content import as_dict
from pmexp_analysis.pages.document import as_markdown
from run_folders import Runs

STOCK: dict[str, Any] = {"train.lr": 0.1, "variant.name": "baseline", "variant.dropout": "stock"}
PACKED = STOCK | {"variant.name": "pm-drop", "variant.dropout": "packed", "variant.recompute": True}


def settle(runs: Runs, variant: str, settings: dict[str, Any], **more: Any) -> None:
    for seed in range(2):
        runs.finished(variant, seed, {}, settings=settings | {"seed": seed}, **more)


def test_what_was_typed_for_all_runs_of_a_variant_is_named(runs: Runs) -> None:
    settle(runs, "baseline", STOCK)
    settle(runs, "pm-drop", PACKED)
    report = runs.content()
    said = [
        "pm-drop differs from baseline in variant.dropout=packed (there stock), "
        "variant.recompute=true (there not set)."
    ]
    assert report.compared == as_dict(report)["protocol"]["compared"] == said
    assert f"- {said[0]}" in as_markdown(report)


def test_what_holds_of_several_tasks_is_said_once(runs: Runs) -> None:
    for task in ("net/digits", "net/letters"):
        settle(runs, "baseline", STOCK, task=task)
        settle(runs, "pm-drop", PACKED, task=task)
    runs.finished("alone", 0, {}, settings=STOCK, task="net/other")
    assert len(compared_settings(runs.experiment())) == 1


def test_runs_alike_in_all_but_the_name_are_said_to_be(runs: Runs) -> None:
    settle(runs, "baseline", STOCK)
    settle(runs, "other", STOCK | {"variant.name": "other"})
    runs.finished("unknown", 0, {})
    assert compared_settings(runs.experiment()) == ["other differs from baseline in no setting but its name."]
