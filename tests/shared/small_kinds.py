"""A run of each kind of model that the configuration knows, small and with random weights."""

from typing import Any

from composed import config
from pmexp.config import ModelKind, RunConfig

WIDTHS = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
}  # fmt: skip
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2}
SIZES: dict[ModelKind, dict[str, Any]] = {
    ModelKind.distilbert: {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
    ModelKind.gpt2: GPT,
    ModelKind.gptj: GPT | {"rotary_dim": 4},
    ModelKind.longformer: WIDTHS | {"attention_window": 8},
    ModelKind.vilt: WIDTHS | {"image_size": 8, "patch_size": 4, "num_channels": 1, "vocab_size": 99},
    ModelKind.vit: WIDTHS | {"image_size": 8, "patch_size": 4, "num_channels": 1},
}
_TASKS = {ModelKind.vilt: ["task=smoke/vilt-flickr8k"], ModelKind.vit: ["model=vit-digits"]}


def of_kind(kind: ModelKind, *overrides: str) -> RunConfig:
    texts = ["model=tinybert", "model.pretrained=false", "dataset=reuters-r8"]
    run = config(*_TASKS.get(kind, texts), *overrides)
    run.model.kind = kind
    run.model.architecture = dict(SIZES.get(kind, WIDTHS)) | ({} if kind in _TASKS else {"vocab_size": 99})
    return run
