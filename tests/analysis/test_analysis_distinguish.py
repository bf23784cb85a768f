"""Runs with the same words and other settings are told apart; equal settings change nothing."""

from pmexp_analysis.sources.distinguish import distinguish
from pmexp_analysis.sources.experiment import Labels


def test_labels_name_the_settings_that_differ() -> None:
    same = {"train.lr": 0.1, "variant.bits": 1, "variant.p": None, "model.name": "net", "seed": 0}
    runs = {
        "a": (Labels("net/d", "plain", "base", 0), same),
        "b": (Labels("net/d", "plain", "base", 0), same | {"train.lr": 0.2}),
        "c": (Labels("net/d", "plain", "packed", 0), same | {"variant.bits": 2}),
        "d": (Labels("net/d", "plain", "packed", 1), same | {"seed": 1}),
        "e": (Labels("other/d", "plain", "base", 1), same | {"train.lr": 0.5}),
    }
    assert distinguish(runs) == {
        "a": Labels("net/d train.lr=0.1", "plain", "base", 0),
        "b": Labels("net/d train.lr=0.2", "plain", "base", 0),
        "c": Labels("net/d train.lr=0.1", "plain", "packed bits=2", 0),
        "d": Labels("net/d train.lr=0.1", "plain", "packed bits=1", 1),
        "e": Labels("other/d", "plain", "base", 1),
    }


def test_a_dropout_rate_belongs_to_the_task_so_that_each_rate_keeps_its_baseline() -> None:
    runs = {
        str(p): (Labels("net/d", "plain", "base", 0), {"variant.p": p, "system.device": "cpu"})
        for p in (0.1, 0.3)
    }
    assert {labels.task for labels in distinguish(runs).values()} == {
        "net/d variant.p=0.1",
        "net/d variant.p=0.3",
    }
    assert {labels.variant for labels in distinguish(runs).values()} == {"base"}


def test_runs_without_recorded_settings_keep_their_labels() -> None:
    labels = Labels("net/d", "plain", "base", 0)
    assert distinguish({"a": (labels, {}), "b": (labels, {})}) == {"a": labels, "b": labels}
