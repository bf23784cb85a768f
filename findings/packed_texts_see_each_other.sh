#!/usr/bin/env bash
# transformers 5.23.0, attention by sdpa: texts that DataCollatorWithFlattening packs into one row attend to each other,
# unless the model reads the borders from position_ids, and that only without a cache. A causal model has a cache by
# default (use_cache=True), in training mode too, so a training loop of one's own needs use_cache=False; Trainer sets it.
# OPT and Falcon see the texts before in either case, also under Trainer. Nothing warns, and the loss looks as usual.
# Each model here gets the text 7 8 9 packed behind 3 4 5 6, and alone.
# Output seen:
# Llama: apart with a cache False, without one True
# GPT2: apart with a cache False, without one True
# OPT: apart with a cache False, without one False
# Falcon: apart with a cache False, without one False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy==2.4.6
cat >"$folder/pack.py" <<'PYTHON'
import torch
from transformers import (AutoModelForCausalLM, DataCollatorWithFlattening, FalconConfig, GPT2Config, LlamaConfig,
                          OPTConfig)

small = dict(vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
configs = {
    "Llama": LlamaConfig(**small, intermediate_size=16),
    "GPT2": GPT2Config(**small, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    "OPT": OPTConfig(**small, ffn_dim=16, word_embed_proj_dim=16, dropout=0.0),
    "Falcon": FalconConfig(**small),
}
packed = DataCollatorWithFlattening()([{"input_ids": [3, 4, 5, 6]}, {"input_ids": [7, 8, 9]}])
lines = []
for name, config in configs.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()
    alone = model(input_ids=torch.tensor([[7, 8, 9]])).logits

    def apart(**options):
        distance = (model(**packed, **options).logits[:, 4:] - alone).abs().max().item()
        assert distance < 1e-5 or distance > 1e-3
        return distance < 1e-5

    lines.append(f"{name}: apart with a cache {apart()}, without one {apart(use_cache=False)}")
print("\n".join(lines))
assert lines == [
    "Llama: apart with a cache False, without one True",
    "GPT2: apart with a cache False, without one True",
    "OPT: apart with a cache False, without one False",
    "Falcon: apart with a cache False, without one False",
]
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/pack.py" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
