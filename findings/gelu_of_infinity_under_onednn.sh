#!/usr/bin/env bash
# torch 2.13.0, Linux CPU: exact GELU of +infinity is NaN where torch hands it to oneDNN, and infinity elsewhere.
# Seen on an Intel Xeon with AVX-512 (torch takes oneDNN's GELU on Intel's CPUs): in eager mode F.gelu of a
# tensor of two or more infinities is NaN, of one it is infinity, with oneDNN turned off and under torch.compile
# it is infinity, and so is the tanh form. float64 is right. Two machines with the same wheel thus differ in
# whether an overflow before a GELU ends as inf or as NaN.
# Output seen: onednn=nan one_element=inf without_onednn=inf tanh=inf float64=inf
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
import torch.nn.functional as F

many = torch.full((64,), float("inf"))
with torch.backends.mkldnn.flags(enabled=False):
    without = F.gelu(many)[0].item()
found = (
    f"onednn={F.gelu(many)[0].item()} one_element={F.gelu(many[:1]).item()} without_onednn={without} "
    f"tanh={F.gelu(many, approximate='tanh')[0].item()} float64={F.gelu(many.double())[0].item()}"
)
print(found)
expected = "onednn=nan one_element=inf without_onednn=inf tanh=inf float64=inf"
assert found == expected, f"expected on an Intel CPU: {expected}"
PYTHON
