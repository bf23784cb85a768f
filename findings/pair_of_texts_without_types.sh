#!/usr/bin/env bash
# transformers 5.23.0: ALBERT's and BigBird's tokenizers, given two texts, return no token_type_ids unless asked by
# return_token_type_ids=True, though both models tell the two texts apart by them and take zeros where there are none.
# BERT's returns them. A model that is given what its tokenizer returns sees one text, without an error or a warning.
# Output seen:
# BertTokenizer: unasked [0, 0, 0, 1, 1], asked [0, 0, 0, 1, 1]
# AlbertTokenizer: unasked None, asked [0, 0, 0, 1, 1]
# BigBirdTokenizer: unasked None, asked [0, 0, 0, 1, 1]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0
cat >"$folder/pairs.py" <<'PYTHON'
from transformers import AlbertTokenizer, BertTokenizer, BigBirdTokenizer

words = ["<pad>", "<unk>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "▁a", "▁b", "a", "b"]
pieces = [(word, 0.0) for word in words]
known = {word: number for number, word in enumerate(words)}
types = [0, 0, 0, 1, 1]
for make, vocabulary, unasked in (
    (BertTokenizer, known, types),
    (AlbertTokenizer, pieces, None),
    (BigBirdTokenizer, pieces, None),
):
    tokenizer = make(vocab=vocabulary)
    returned = tokenizer("a", "b").get("token_type_ids")
    asked = tokenizer("a", "b", return_token_type_ids=True)["token_type_ids"]
    assert (returned, asked) == (unasked, types), (make, returned, asked)
    print(f"{make.__name__}: unasked {returned}, asked {asked}")
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/pairs.py"
