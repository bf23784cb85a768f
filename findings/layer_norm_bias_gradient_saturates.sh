#!/usr/bin/env bash
# torch 2.13.0, CPU: the bias gradient of nn.LayerNorm in bfloat16 stops growing at 256 for each thread.
# The gradient of the bias is the sum of the incoming gradients over all rows. LayerNorm's backward adds the rows up in
# bfloat16, one sum a thread: 256 + 1 is 256 there, so 4,096 rows of ones give 256 with one thread and 512 with two,
# where nn.Linear's bias gets 4,096. In float32 all is as it should be, and so is the number of rows up to 256.
# Output seen: one_thread=256.0 two_threads=512.0 linear=4096.0 float32=4096.0 rows_256=256.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch import nn


def bias_gradient(layer, rows, threads, dtype=torch.bfloat16):
    torch.set_num_threads(threads)
    layer = layer.to(dtype)
    layer(torch.randn(rows, 32, dtype=dtype)).backward(torch.ones(rows, 32, dtype=dtype))
    (value,) = set(layer.bias.grad.tolist())
    return value


one, two = (bias_gradient(nn.LayerNorm(32), 4096, threads) for threads in (1, 2))
linear = bias_gradient(nn.Linear(32, 32), 4096, 1)
wide = bias_gradient(nn.LayerNorm(32), 4096, 1, torch.float32)
few = bias_gradient(nn.LayerNorm(32), 256, 1)
seen = f"one_thread={one} two_threads={two} linear={linear} float32={wide} rows_256={few}"
print(seen)
assert seen == "one_thread=256.0 two_threads=512.0 linear=4096.0 float32=4096.0 rows_256=256.0"
PYTHON
