#!/usr/bin/env bash
# transformers 5.23.0: T5ForSequenceClassification of a T5Config of one's own sizes cannot run a forward. It shifts its
# inputs for the decoder and asks for config.decoder_start_token_id, which T5Config does not declare; the checkpoints on
# the hub have it in their config.json, so only models from a configuration meet it. BartForSequenceClassification runs
# from a bare BartConfig.
# Output seen:
# T5Config AttributeError: 'T5Config' object has no attribute 'decoder_start_token_id'
# T5Config with decoder_start_token_id=0: logits (1, 2)
# BartConfig: logits (1, 2)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy transformers==5.23.0
cat >"$folder/look.py" <<'PYTHON'
import torch
from transformers import BartConfig, BartForSequenceClassification, T5Config, T5ForSequenceClassification

sizes = dict(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, num_labels=2)
ids = torch.tensor([[5, 6, 7, 1]])
try:
    T5ForSequenceClassification(T5Config(**sizes))(input_ids=ids)
    raise SystemExit("a bare T5Config is enough by now")
except AttributeError as error:
    print("T5Config AttributeError:", error)
told = T5ForSequenceClassification(T5Config(**sizes, decoder_start_token_id=0))(input_ids=ids)
print("T5Config with decoder_start_token_id=0: logits", tuple(told.logits.shape))
bart = BartConfig(
    vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
    decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_labels=2,
)
told = BartForSequenceClassification(bart)(input_ids=torch.tensor([[0, 5, 6, 2]]))
print("BartConfig: logits", tuple(told.logits.shape))
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/look.py"
