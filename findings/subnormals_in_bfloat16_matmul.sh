#!/usr/bin/env bash
# torch 2.13.0, Linux CPU with AVX512_BF16: a larger bfloat16 matmul takes subnormal numbers for zero, a small one not.
# torch hands bfloat16 products of (m, k) by (k, n) to oneDNN only if m*k*n is above 4096, and oneDNN takes the
# processor's bfloat16 dot product, which knows no subnormals. So a row of sixteen 1e-40 times ones is a number in
# a batch of 16 rows and 0 in a batch of 17. Sixteen products 2**-120 * 2**-10, each too small for a normal number,
# sum to the normal number 2**-126 and give 0 as well. float32, oneDNN turned off, oneDNN held to plain AVX-512
# (ONEDNN_MAX_CPU_ISA=AVX512_CORE) and elementwise products keep them; torch.set_flush_denormal was never called.
# Output seen, whether the value is above 0: batch16=True batch17=False products=False float32=True
# without_onednn=True plain_avx512=True elementwise=True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import os
import subprocess
import sys

import torch


def product(rows, left=1e-40, right=1.0, dtype=torch.bfloat16):
    return (torch.full((rows, 16), left, dtype=dtype) @ torch.full((16, 16), right, dtype=dtype))[0, 0].item()


with torch.backends.mkldnn.flags(enabled=False):
    without = product(17)
program = "import torch; print((torch.full((17, 16), 1e-40).bfloat16() @ torch.ones(16, 16).bfloat16())[0, 0].item())"
plain = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", program],
    env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, capture_output=True, text=True, check=True,
)  # fmt: skip
kept = {
    "batch16": product(16),
    "batch17": product(17),
    "products": product(17, 2.0**-120, 2.0**-10),
    "float32": product(17, dtype=torch.float32),
    "without_onednn": without,
    "plain_avx512": float(plain.stdout),
    "elementwise": (torch.full((64,), 1e-40, dtype=torch.bfloat16) * 1)[0].item(),
}
found = " ".join(f"{name}={value > 0}" for name, value in kept.items())
print(found)
expected = (
    "batch16=True batch17=False products=False float32=True without_onednn=True plain_avx512=True elementwise=True"
)
assert found == expected, f"expected on a CPU with AVX512_BF16: {expected}"
PYTHON
