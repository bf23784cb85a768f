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
SIZES: dict[ModelKind, dict[str, Any]] = {
    ModelKind.distilbert: {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16},
    ModelKind.gpt2: GPT,
    ModelKind.gptj: GPT | {"rotary_dim": 4},
    ModelKind.longformer: WIDTHS | {"attention_window": 8},
    ModelKind.vit: WIDTHS | {"image_size": 8, "patch_size": 4, "num_channels": 1},
}


composed_once = cache(config)  # to compose takes longer than to build the model


def of_kind(kind: ModelKind, *overrides: str) -> RunConfig:
    image = kind is ModelKind.vit
    base = (
        ["model=vit-digits"] if image else ["model=tinybert", "model.pretrained=false", "dataset=reuters-r8"]
    )
    run = deepcopy(composed_once(*base, *overrides))
    run.model.kind = kind
    run.model.architecture = dict(SIZES.get(kind, WIDTHS)) | ({} if image else {"vocab_size": 99})
    return run
