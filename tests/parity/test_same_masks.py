"""pm-drop with nn.Dropout's own masks trains as the baseline does, bit for bit: every output, gradient and weight."""

import json
from pathlib import Path

import pytest

from pmexp.parity.command import main
from small_runs import TINY_BERT, TINY_VIT

LISTOPS = [
    "task=smoke/longformer-listops",
    "dataset.trees.samples=60",
    "model.architecture.num_hidden_layers=1",
    "train.threads=1",
]
MODELS = {"vit-digits": TINY_VIT, "bert": TINY_BERT, "longformer": LISTOPS}
STACKS = {
    "fp32": [],
    "bf16-checkpointing-accumulated": ["system.parts=[bf16,checkpointing]", "train.accumulate=2"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("model", "stack"),
    [(model, stack) for model in MODELS for stack in STACKS if (model, stack) != ("longformer", "fp32")],
)
def test_its_training_is_the_baselines(
    model: str, stack: str, few_news: str, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMEXP_CACHE", cache)
    data = [few_news] if model == "bert" else []
    assert (
        main([*MODELS[model], *data, *STACKS[stack], "train.batch_size=8", "steps=2", f"out={tmp_path}"]) == 0
    )
    told = json.loads((tmp_path / "certificate.json").read_text())
    assert told["b"]["dropout"] == "pm-drop-same-masks" and told["only_in"] == {"a": [], "b": []}
    replaced = told["b"]["replacement"]
    assert replaced["modules"] and replaced["functions"] and not replaced["left"]
    assert told["a"]["precision"] == ("bf16 autocast" if STACKS[stack] else "fp32")
