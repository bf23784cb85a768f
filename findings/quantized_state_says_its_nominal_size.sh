#!/usr/bin/env bash
# torchao 0.18.0 on torch 2.13.0: the state of AdamW8bit says that it takes 4 bytes an element, and takes 1.03.
# exp_avg and exp_avg_sq are tensor subclasses over codes, scales and a table. Their nbytes, element_size() and
# untyped_storage().nbytes() are those of a float32 tensor of their shape, so that a sum over optimizer.state, as tools
# that report the memory of an optimizer make it, finds nothing saved; and the storage's data_ptr(), by which such a
# sum would leave out what is shared, raises RuntimeError. The bytes are those of the tensors that __tensor_flatten__
# names.
# Output seen: nominal=262144 storage=262144 within=67584 data_ptr=RuntimeError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy setuptools
"$folder/venv/bin/pip" install --quiet --no-deps torchao==0.18.0
TORCHINDUCTOR_CACHE_DIR="$folder/cache" "$folder/venv/bin/python" -W ignore - 2> "$folder/err" <<'PYTHON' || { cat "$folder/err" >&2; exit 1; }
import torch
from torchao.optim import AdamW8bit

weight = torch.nn.Parameter(torch.randn(256, 256))
optimizer = AdamW8bit([weight], lr=1e-3)
weight.grad = torch.randn(256, 256)
optimizer.step()
state = optimizer.state[weight]["exp_avg"]
within = sum(getattr(state, name).nbytes for name in state.__tensor_flatten__()[0])
try:
    state.untyped_storage().data_ptr()
    address = "number"
except RuntimeError:
    address = "RuntimeError"
seen = f"nominal={state.nbytes} storage={state.untyped_storage().nbytes()} within={within} data_ptr={address}"
print(seen)
assert seen == "nominal=262144 storage=262144 within=67584 data_ptr=RuntimeError"
PYTHON
