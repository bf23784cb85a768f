"""Tasks of the studies in small, through the command line: two steps on one process.

The smoke forms of the experiments run in tests/browser/test_report_page.py.
"""

import pytest

from small_runs import Runs


@pytest.mark.slow
def test_listops_in_small(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMEXP_CACHE", str(runs.folder.parent / "cache"))
    steps = ["train.max_steps=2", "train.batch_size=8", "train.threads=1", "tracking=off"]
    stack = "system.parts=[bf16,flash,tempo]"
    code, _, err = runs.train("task=smoke/longformer-listops", "variant=pm-drop", stack, *steps)
    assert code == 0, err
    (summary,) = runs.summaries().values()
    assert summary["metrics"]["ood/accuracy"] is not None


def test_adapters_of_gptj_in_small(runs: Runs, few_news: str) -> None:
    steps = ["train.max_steps=2", "train.batch_size=8", "train.threads=1", "tracking=off"]
    code, _, err = runs.train("task=smoke/gptj-6b", few_news, "variant=pm-drop", *steps)
    assert code == 0, err
    (summary,) = runs.summaries().values()
    assert summary["environment"]["precision"] == "bf16 and fp32 weights, bf16 autocast system"
    assert summary["settings"]["model.lora.frozen_weights"] == "bf16"
