#!/usr/bin/env bash
# transformers 5.23.0: AutoTokenizer.from_pretrained succeeds on a folder without any tokenizer file.
# A folder that holds nothing but BERT's config.json (vocab_size 30522 in it) gives a tokenizer of the five special
# tokens, without an error: every word becomes [UNK], so that all texts of one word count have the same ids.
# A checkpoint saved without its tokenizer thus trains and evaluates on constant input.
# Output seen: files=['config.json'] type=BertTokenizer size=5 tokens=['[UNK]', '[UNK]', '[UNK]'] same_ids=True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy transformers==5.23.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import os
import tempfile

from transformers import AutoTokenizer, BertConfig

with tempfile.TemporaryDirectory() as folder:
    BertConfig(vocab_size=30522).save_pretrained(folder)
    files = os.listdir(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
same = tokenizer("a good film")["input_ids"] == tokenizer("one poor play")["input_ids"]
found = (
    f"files={files} type={type(tokenizer).__name__} size={len(tokenizer)} "
    f"tokens={tokenizer.tokenize('a good film')} same_ids={same}"
)
print(found)
expected = "files=['config.json'] type=BertTokenizer size=5 tokens=['[UNK]', '[UNK]', '[UNK]'] same_ids=True"
assert found == expected
PYTHON
