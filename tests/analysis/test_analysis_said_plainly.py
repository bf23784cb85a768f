"""What is wrong with a run's labels, and what a single seed lacks, is said as it is."""

import json

from pmexp_analysis.criteria import judge
from pmexp_analysis.sources.folders import load_runs
from run_folders import Runs


def test_one_seed_of_the_baseline_is_told_that_two_are_needed(runs: Runs) -> None:
    quality = {
        "metric": "score",
        "statistic": "difference_in_sigma",
        "comparison": "no_worse",
        "threshold": 0.2,
    }
    for variant, score in (("baseline", 0.9), ("pm-drop", 0.8)):
        protocol = {"method": "pm-drop", "criteria": {"quality": quality}}
        runs.finished(variant, 0, {"test/accuracy": score}, protocol=protocol)
    (one,) = judge(load_runs(runs.root, "demo"), [])
    assert one.why == "the baseline has one seed, and its standard deviation needs at least 2"


def test_a_seed_that_is_a_word_is_not_called_missing(runs: Runs) -> None:
    runs.finished("baseline", 0, {"test/accuracy": 0.9})
    path = runs.finished("baseline", 1, {"test/accuracy": 0.9}) / "summary.json"
    summary = json.loads(path.read_text())
    summary["labels"]["seed"] = "one"
    path.write_text(json.dumps(summary))
    (missing,) = load_runs(runs.root, "demo").missing
    assert "labels has seed='one'; task, system and variant are text, the seed a whole number" in missing.why
