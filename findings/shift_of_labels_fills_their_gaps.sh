#!/usr/bin/env bash
# transformers 5.23.0: FSMTForConditionalGeneration.prepare_decoder_input_ids_from_labels(labels) changes its argument:
# each ignored label (-100) becomes the padding token, so a collator that asks the model for the decoder's input and
# passes the same labels on trains on padding. The same method of BART and T5 leaves its argument as it is.
# Output seen:
# Bart: labels kept, ignored before 2 and after 2
# T5: labels kept, ignored before 2 and after 2
# FSMT: labels changed, ignored before 2 and after 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy
cat >"$folder/shift.py" <<'PYTHON'
import torch
from transformers import BartConfig, BartForConditionalGeneration, FSMTConfig, FSMTForConditionalGeneration
from transformers import T5Config, T5ForConditionalGeneration

sizes = dict(d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
             encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=1, decoder_start_token_id=2)
models = {
    "Bart": BartForConditionalGeneration(BartConfig(vocab_size=20, **sizes)),
    "T5": T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2,
                                              decoder_start_token_id=0)),
    "FSMT": FSMTForConditionalGeneration(FSMTConfig(langs=["en", "de"], src_vocab_size=20, tgt_vocab_size=20, **sizes)),
}
after = {}
for name, model in models.items():
    labels = torch.tensor([[5, 6, 7, 2], [8, 2, -100, -100]])
    given = labels.clone()
    model.prepare_decoder_input_ids_from_labels(labels)
    after[name] = (labels == -100).sum().item()
    kept = "kept" if torch.equal(labels, given) else "changed"
    print(f"{name}: labels {kept}, ignored before 2 and after {after[name]}")
assert after == {"Bart": 2, "T5": 2, "FSMT": 0}
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/shift.py"
