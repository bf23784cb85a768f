#!/usr/bin/env bash
# transformers 5.23.0: a decoder's sequence classifier takes the logits at the last token that is not its configuration's
# pad_token_id. The attention mask, given and right, has no say in it. Where the tokenizer pads by another token than the
# configuration names, a padded text is classified at its last padding: another class score than the text alone has,
# and no warning.
# Output seen:
# pad_token_id=0, the tokenizer's: padded and alone differ by less than 1e-6
# pad_token_id=9, another one: padded and alone differ by more than 1e-3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy
cat >"$folder/pool.py" <<'PYTHON'
import warnings

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

torch.manual_seed(0)
model = LlamaForSequenceClassification(
    LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                num_key_value_heads=2, initializer_range=0.5)
).eval()
text = torch.tensor([[5, 6, 7]])
padded = torch.tensor([[5, 6, 7, 0, 0], [5, 6, 7, 8, 6]])
mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
apart = {}
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for pad in (0, 9):
        model.config.pad_token_id = pad
        with torch.no_grad():
            alone = model(input_ids=text).logits[0]
            batch = model(input_ids=padded, attention_mask=mask).logits[0]
        apart[pad] = (alone - batch).abs().max().item()
assert not seen, seen
assert apart[0] < 1e-6 and apart[9] > 1e-3, apart
print("pad_token_id=0, the tokenizer's: padded and alone differ by less than 1e-6")
print("pad_token_id=9, another one: padded and alone differ by more than 1e-3")
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/pool.py"
