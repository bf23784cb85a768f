"""A score of somebody's own that falls while models learn is named: more of it was taken for better."""

from collections.abc import Callable

import pytest

from run_folders import Runs, record

METRIC = "val/mypkg.mine"


def warnings(
    runs: Runs, score: Callable[[int], float], losses: tuple[float, ...], metric: str = METRIC
) -> list[str]:
    """Two runs with an evaluation after every step, in which `score` is of the step."""
    for seed in range(2):
        path = runs.finished("baseline", seed, {metric: score(3), "val/loss": losses[-1], "test/loss": 1.0})
        journal = path / "journal.jsonl"
        lines = [record("val/loss", loss, step, 1.0) for step, loss in enumerate(losses)]
        lines += [record(metric, score(step), step, 1.0) for step in range(len(losses))]
        journal.write_text(journal.read_text() + "".join(lines))
    content = runs.content()
    return [line for line in content.warnings if line.startswith("val/")]


def test_an_error_that_was_returned_as_it_is_is_named(runs: Runs) -> None:
    (line,) = warnings(runs, lambda step: 0.9 - 0.2 * step, (2.0, 1.5, 1.0, 0.5))
    assert line.startswith("val/mypkg.mine fell in 12 of 12 pairs") and "return it with a minus" in line


@pytest.mark.parametrize(
    ("score", "losses", "metric"),
    [
        (lambda step: 0.2 * step, (2.0, 1.5, 1.0, 0.5), METRIC),
        (lambda step: 0.2 * step, (0.5, 1.0, 1.5, 2.0), METRIC),  # it overfits by its loss, and still learns
        (lambda step: 1.0, (2.0, 1.5, 1.0, 0.5), METRIC),
        (lambda step: 0.9 - 0.2 * step, (2.0, 1.5), METRIC),  # two evaluations a run say too little
        (lambda step: 0.9 - 0.2 * step, (2.0, 1.5, 1.0, 0.5), "val/perplexity"),
    ],
)
def test_any_other_is_not(
    score: Callable[[int], float], losses: tuple[float, ...], metric: str, runs: Runs
) -> None:
    assert warnings(runs, score, losses, metric) == []


@pytest.mark.parametrize(
    ("select", "metric", "is_named"),
    [("best", "val/accuracy", True), ("last", "val/accuracy", False), ("best", "test/accuracy", False)],
)
def test_scores_of_the_split_that_selected_the_weights_are_named(
    runs: Runs, select: str, metric: str, is_named: bool
) -> None:
    for variant in ("baseline", "pm-drop"):
        finals = {metric: 0.9, "val/f1": 0.8, "speed/step_ms": 3.0}
        runs.finished(variant, 0, finals, settings={"train.select": select}, task="net/digits")
    said = "net/digits, plain: scores are of the validation split, which has selected the weights too"
    assert [line.startswith(said) for line in runs.content().warnings] == [True] * is_named
