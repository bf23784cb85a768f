#!/usr/bin/env bash
# torch 2.13.0: softmax and log_softmax that read 16 bits and write float32 in one pass (their flag half_to_float) have
# other rules on fake tensors of a CUDA device: _softmax takes bfloat16, _log_softmax raises AssertionError and takes
# float16 alone. Who simulates a step in bfloat16 has to cast first, which is 4 bytes an element more.
# Output seen:
# _softmax torch.float32
# _log_softmax AssertionError: half_to_float is True but x.dtype is torch.bfloat16, expected torch.half
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat >"$folder/look.py" <<'PYTHON'
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

said = {}
with FakeTensorMode(allow_non_fake_inputs=True):
    x = torch.empty(4, 8, dtype=torch.bfloat16, device="cuda")
    for name in ("_softmax", "_log_softmax"):
        try:
            said[name] = str(getattr(torch.ops.aten, name)(x, -1, True).dtype)
        except AssertionError as error:
            said[name] = f"AssertionError: {str(error).splitlines()[0]}"
        print(name, said[name])
assert said["_softmax"] == "torch.float32" and said["_log_softmax"].startswith("AssertionError")
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/look.py"
