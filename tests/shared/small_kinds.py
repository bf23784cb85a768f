"""A run of each kind of model that the configuration knows, small and with random weights."""

from copy import deepcopy
from functools import cache
from typing import Any

from composed import config
from pmexp.config import ModelKind, RunConfig

WIDTHS = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
}  # fmt: skip
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2}
PAIR = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip
SIZES: dict[ModelKind, dict[str, Any]] = {
    ModelKind.bart: PAIR,
    ModelKind.distilbert: {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
    ModelKind.gpt2: GPT,
    ModelKind.gptj: GPT | {"rotary_dim": 4},
    ModelKind.longformer: WIDTHS | {"attention_window": 8},
    ModelKind.t5: {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
    ModelKind.vilt: WIDTHS | {"image_size": 8, "patch_size": 4, "num_channels": 1, "vocab_size": 99},
    ModelKind.vit: WIDTHS | {"image_size": 8, "patch_size": 4, "num_channels": 1},
}
PAIRS = (ModelKind.bart, ModelKind.t5)
_IMAGES = {ModelKind.vilt: ["task=smoke/vilt-flickr8k"], ModelKind.vit: ["model=vit-digits"]}
_PAIR_TASK = ["model=bart-base", "model.pretrained=false", "dataset=django-messages"]
_TASKS = _IMAGES | dict.fromkeys(PAIRS, _PAIR_TASK)
_TEXTS = ["model=tinybert", "model.pretrained=false", "dataset=reuters-r8"]

composed_once = cache(config)  # to compose takes longer than to build the model


def of_kind(kind: ModelKind, *overrides: str) -> RunConfig:
    run = deepcopy(composed_once(*_TASKS.get(kind, _TEXTS), f"model.kind={kind.name}", *overrides))
    run.model.architecture = dict(SIZES.get(kind, WIDTHS)) | ({} if kind in _IMAGES else {"vocab_size": 99})
    return run
