#!/usr/bin/env bash
# torch 2.13.0, CPU: nn.Bilinear under bfloat16 autocast computes in bfloat16, and in float32 once a dispatch mode watches.
# Autocast casts for the product inside of bilinear, so the result is rounded as in bfloat16, and is float32 by its dtype.
# Under a TorchDispatchMode that only passes every call on, such as one that counts operations or memory, the product
# runs below autocast: the result is that without autocast, to the bit. So the counted step is another one.
# Output seen: dtype=torch.float32 plain_is_rounded=True watched_is_exact=True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Passing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


torch.manual_seed(0)
bilinear, x = torch.nn.Bilinear(8, 8, 8), torch.randn(4, 8)
exact = bilinear(x, x)
with torch.autocast("cpu", torch.bfloat16):
    plain = bilinear(x, x)
    with Passing():
        watched = bilinear(x, x)
rounded = (plain - exact).abs().max().item() > 1e-3
seen = f"dtype={plain.dtype} plain_is_rounded={rounded} watched_is_exact={torch.equal(watched, exact)}"
print(seen)
assert seen == "dtype=torch.float32 plain_is_rounded=True watched_is_exact=True"
PYTHON
