#!/usr/bin/env bash
# torch 2.13.0: under a TorchFunctionMode nn.MultiheadAttention is one function, multi_head_attention_forward, which
# the mode gets as a whole and calls with itself off: the linear layers, the softmax and the dropout in it are not
# seen, where those of an attention written by hand are.
# Output seen: module=['multi_head_attention_forward'] by_hand=['linear', 'softmax', 'dropout', 'matmul']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

KNOWN = ("multi_head_attention_forward", "linear", "softmax", "dropout", "matmul")


class Names(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in KNOWN:
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


module, x = nn.MultiheadAttention(8, 2, dropout=0.5), torch.ones(3, 1, 8)
weight = torch.ones(8, 8)
with Names() as of_module:
    module(x, x, x, need_weights=True)
with Names() as by_hand:
    scores = F.linear(x, weight)
    torch.matmul(F.dropout(F.softmax(scores, -1), 0.5), scores.transpose(-1, -2))
seen = f"module={of_module.names} by_hand={by_hand.names}"
print(seen)
assert seen == "module=['multi_head_attention_forward'] by_hand=['linear', 'softmax', 'dropout', 'matmul']"
PYTHON
