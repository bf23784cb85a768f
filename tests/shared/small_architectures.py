"""Runs of model.kind=auto at tiny sizes, on files of one's own."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from composed import config
from pmexp.config import RunConfig, VariantConfig
from pmexp.models.architectures import own_fields

ENCODER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
DECODER = ENCODER | {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}
PAIR = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
PICTURES = {**ENCODER, "num_hidden_layers": 1, "image_size": 8, "patch_size": 4, "num_channels": 1}
SIZES: dict[str, dict[str, Any]] = {
    "modernbert": ENCODER, "bert": ENCODER, "qwen3": DECODER, "t5": PAIR,
    "clip": {"vision_config": PICTURES, "text_config": ENCODER},
}  # fmt: skip
OBJECTIVES = {
    "classification": ["dataset=sst2", "dataset.text_columns=[text]"],
    "regression": ["dataset=stsb", "dataset.text_columns=[text]", "dataset.label_column=number"],
    "token_classification": [
        "dataset=wikiann-en",
        "dataset.text_columns=[words]",
        "dataset.label_column=tags",
    ],
    "masked_lm": ["dataset=wikitext103", "dataset.text_columns=[text]"],
    "causal_lm": ["dataset=wikitext103", "dataset.objective=causal_lm", "dataset.text_columns=[text]"],
    "seq2seq": ["dataset=wmt16-ro-en", "dataset.text_columns=[text,turned]", "dataset.generation.beams=1"],
    "pictures": ["dataset=digits"],
}
SHORT = ["train.batch_size=4", "train.max_steps=3", "train.lr=0.01", "system.device=cpu", "tracking=off"]


@cache
def composed(objective: str, *more: str) -> RunConfig:
    texts = ["dataset.max_length=16"] if objective != "pictures" else []
    return config("model=auto", "model.pretrained=false", *OBJECTIVES[objective], *texts, *SHORT, *more,
                  "model.architecture.model_type=bert", "variant.p=0.2")  # fmt: skip


@cache
def variant(name: str) -> VariantConfig:
    return replace(config(f"variant={name}").variant, p=0.2)


def run_of(architecture: str, objective: str, files: Path, *more: str, **fields: Any) -> RunConfig:
    run = deepcopy(composed(objective, *more))
    own = own_fields(CONFIG_MAPPING[architecture])
    sizes = SIZES[architecture] | {"vocab_size": 300} if "vocab_size" in own else SIZES[architecture]
    run.model.architecture = {"model_type": architecture} | deepcopy(sizes) | fields
    if objective != "pictures":
        run.dataset.path = str(files)
    return run
