#!/usr/bin/env bash
# torch 2.13.0: a negative dimension or index that an autograd node has saved is read as an unsigned 64-bit number.
# x.transpose(-1, -2).grad_fn._saved_dim0 is 18446744073709551615 and not -1; so for permute, unsqueeze, slice, select.
# Given back to the operation it was of, the number is refused as an overflow. Its meaning is value - 2**64.
# Output seen: read=[18446744073709551615, 18446744073709551615, 18446744073709551614, 18446744073709551615] refused=True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch

x = torch.ones(2, 3, requires_grad=True)
read = [
    x.transpose(-1, -2).grad_fn._saved_dim0,
    x.permute(-1, 0).grad_fn._saved_dims[0],
    x[:, -2:].grad_fn._saved_start,
    x.select(-1, -1).grad_fn._saved_index,
]
try:
    x.transpose(read[0], 0)
    refused = False
except (ValueError, OverflowError):
    refused = True
seen = f"read={read} refused={refused}"
print(seen)
assert seen == f"read={[2**64 - 1, 2**64 - 1, 2**64 - 2, 2**64 - 1]} refused=True"
PYTHON
