"""What is wrong with a run's labels or values, and what a single seed lacks, is said as it is."""

import json

import yaml

from pmexp_analysis.criteria import judge
from pmexp_analysis.numbers.compare import comparisons, rows
from pmexp_analysis.numbers.sections import sections
from pmexp_analysis.pages.tables import result_table
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
    (one,) = judge(runs.experiment(), [])
    assert one.why == "the baseline has one seed, and its standard deviation needs at least 2"


def test_a_seed_that_is_a_word_is_not_called_missing(runs: Runs) -> None:
    runs.finished("baseline", 0, {"test/accuracy": 0.9})
    path = runs.finished("baseline", 1, {"test/accuracy": 0.9}) / "summary.json"
    summary = json.loads(path.read_text())
    summary["labels"]["seed"] = "one"
    path.write_text(json.dumps(summary))
    (missing,) = runs.experiment().missing
    assert "labels has seed='one'; task, system and variant are text, the seed a whole number" in missing.why


def test_a_run_in_no_plan_keeps_its_labels_where_its_summary_is_broken(runs: Runs) -> None:
    runs.finished("baseline", 2, {"test/accuracy": 0.9})
    folder = runs.finished("baseline", 3, {"test/accuracy": 0.9})
    names = {"model": "net", "dataset": "digits", "variant": "baseline", "system": "plain"}
    groups = {group: {"name": name} for group, name in names.items()}
    (folder / "config.yaml").write_text(yaml.safe_dump(groups | {"seed": 3}))
    (folder / "summary.json").write_text("{")
    (runs.root / "demo" / "plan.json").write_text("[]")
    (missing,) = runs.experiment().missing
    assert (missing.task, missing.variant, missing.seed) == ("net/digits", "baseline", 3)
    assert "summary.json is damaged" in missing.why


def test_a_mean_over_fewer_seeds_than_its_line_says_so(runs: Runs) -> None:
    for seed, step_ms in enumerate((2.0, float("inf"), 4.0)):
        runs.finished("baseline", seed, {"test/accuracy": 0.9, "speed/step_ms": step_ms})
    experiment = runs.experiment()
    compared = comparisons(experiment.values, experiment.protocol)
    (section,) = sections(rows(experiment.values), compared, "baseline")
    table = result_table(section)
    _, n, score, *others = table.cells[0]
    step_ms = dict(zip(table.headings[3:], others, strict=True))["step ms"]
    assert n == "3" and step_ms.endswith("(n=2)") and "(n=" not in score
