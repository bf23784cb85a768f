#!/usr/bin/env bash
# torch 2.13.0, CPU: the scalar that F.mse_loss, smooth_l1_loss, binary_cross_entropy and soft_margin_loss return lies in a
# storage of as many elements as their input has. A list of `loss.detach()` of each step therefore keeps a tensor of the
# predictions' size for each; `loss.detach().clone()` keeps 4 bytes. The scalars of l1_loss, huber_loss and cross_entropy have
# 4 bytes, and so have all of them under FakeTensorMode, whose storages are thus too small for a forecast of memory.
# Output seen:
# mse_loss: 4194304 bytes, fake 4
# smooth_l1_loss: 4194304 bytes, fake 4
# binary_cross_entropy: 4194304 bytes, fake 4
# soft_margin_loss: 4194304 bytes, fake 4
# l1_loss: 4 bytes, fake 4
# huber_loss: 4 bytes, fake 4
# a clone of mse_loss: 4 bytes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat >"$folder/held.py" <<'PYTHON'
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

large = ("mse_loss", "smooth_l1_loss", "binary_cross_entropy", "soft_margin_loss")


def held(name: str) -> int:
    return getattr(F, name)(torch.full((1024, 1024), 0.5), torch.ones(1024, 1024)).detach().untyped_storage().nbytes()


for name in (*large, "l1_loss", "huber_loss"):
    real = held(name)
    with FakeTensorMode():
        fake = held(name)
    print(f"{name}: {real} bytes, fake {fake}")
    assert (real, fake) == (4 * 1024**2 if name in large else 4, 4)
cloned = F.mse_loss(torch.ones(8), torch.ones(8)).detach().clone().untyped_storage().nbytes()
print(f"a clone of mse_loss: {cloned} bytes")
assert cloned == 4
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/held.py"
