#!/usr/bin/env bash
# transformers 5.23.0: a ViltModel in eval() draws from torch's generator and shuffles its patches in every forward.
# Two forwards of one input give the states of the patches in another order, so that last_hidden_state at a place is
# another patch each time; what is pooled differs by rounding. An evaluation thus moves the random numbers of the
# training that goes on behind it. The shuffle is torch.multinomial without replacement, in ViltEmbeddings.visual_embed.
# Output seen: generator_moved=True states_differ=True pooled_close=True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy transformers==5.23.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from transformers import ViltConfig, ViltModel

torch.manual_seed(0)
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
model = ViltModel(ViltConfig(**sizes, image_size=64, patch_size=8)).eval()
ids = torch.ones(2, 5, dtype=torch.long)
inputs = {"input_ids": ids, "attention_mask": ids, "pixel_values": torch.randn(2, 3, 64, 64)}
before = torch.get_rng_state()
with torch.no_grad():
    one = model(**inputs)
    moved = not torch.equal(before, torch.get_rng_state())
    two = model(**inputs)
differ = (one.last_hidden_state - two.last_hidden_state).abs().max().item() > 0.1
close = torch.allclose(one.pooler_output, two.pooler_output, atol=1e-6)
seen = f"generator_moved={moved} states_differ={differ} pooled_close={close}"
print(seen)
assert seen == "generator_moved=True states_differ=True pooled_close=True"
PYTHON
