"""What a checkpoint's config.json says in ways that its class does not declare: the model is transformers' own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    DebertaV2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Mamba2Config,
    MistralConfig,
    PretrainedConfig,
)

from composed import config
from pmexp.config import Objective
from pmexp.models.checkpoint import load_pretrained
from pmexp.models.objectives import AUTO_CLASSES
from small_architectures import DECODER, ENCODER, OBJECTIVES

OF_TEXT: dict[str, Any] = {"vocab_size": 16, "pad_token_id": 0, "max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}  # fmt: skip
V3: dict[str, Any] = {
    "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "norm_rel_ebd": "layer_norm",
    "share_att_key": True, "type_vocab_size": 0, "position_biased_input": False, "pooler_hidden_size": 16,
}  # fmt: skip
CASES: dict[str, tuple[PretrainedConfig, str, dict[str, Any]]] = {
    "rope_theta of Llama": (LlamaConfig(**DECODER | OF_TEXT), "causal_lm", {"rope_theta": 50.0, "rope_scaling": LLAMA3}),
    "rope_theta of Mistral": (MistralConfig(**DECODER | OF_TEXT), "classification", {"rope_theta": 50.0}),
    "rotary_pct of GPT-NeoX": (GPTNeoXConfig(**ENCODER | OF_TEXT), "causal_lm", {"rotary_pct": 1.0, "rotary_emb_base": 50}),
    "position_buckets of DeBERTa": (DebertaV2Config(**ENCODER | OF_TEXT, **V3), "classification", {}),
    "infinity of Mamba 2": (
        Mamba2Config(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_heads=4, head_dim=8, state_size=8,
                     n_groups=1, chunk_size=8), "causal_lm", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
def test_a_checkpoint_computes_what_transformers_computes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved, objective, of_older = CASES[name]
    auto = AUTO_CLASSES[Objective[objective]]
    auto.from_config(saved).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    written = json.loads(file.read_text())
    if of_older:
        del written["rope_parameters"]
    file.write_text(json.dumps(written | of_older))
    run = config("model=auto", *OBJECTIVES[objective], f"model.path={tmp_path}")
    ours = load_pretrained(auto, tmp_path, run, ["no", "yes"]).module.eval()
    theirs = auto.from_pretrained(tmp_path).eval()
    text = {"input_ids": torch.randint(3, 16, (1, 12)), "use_cache": False}
    if "DeBERTa" in name:
        del text["use_cache"]
    with torch.no_grad():
        torch.testing.assert_close(ours(**text).logits, theirs(**text).logits)
