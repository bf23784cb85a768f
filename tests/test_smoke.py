"""Tasks of both studies in small, through the command line: two steps on one process."""

import pytest

from small_runs import Runs

STACK = "system.parts=[bf16,flash,tempo]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "arguments", "metric"),
    [
        ("tinybert-mrpc", ["variant=4bit"], "test/accuracy"),
        ("longformer-listops", ["variant=pm-drop", STACK], "ood/accuracy"),
        ("vit-imagenet", ["variant=pm-drop", STACK], "fgsm/top5"),
    ],
)
def test_a_task_in_small(
    task: str, arguments: list[str], metric: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ["train.max_steps=2", "train.batch_size=8", "train.threads=1", "tracking=off"]
    if "listops" in task:
        monkeypatch.setenv("PMEXP_CACHE", str(runs.folder.parent / "cache"))
    code, _, err = runs.train(f"task=smoke/{task}", *arguments, *steps)
    assert code == 0, err
    (summary,) = runs.summaries().values()
    assert summary["metrics"][metric] is not None
