#!/usr/bin/env bash
# torch 2.13.0: the operator that only chooses a kernel of attention, aten::_fused_sdp_choice, is tagged
# nondeterministic_seeded, and draws nothing: a mode that finds random draws by that tag takes the question which
# kernel would compute attention without dropout for a draw, and the generator's state stays as it was.
# Output seen: tagged=['_fused_sdp_choice'] drew=False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Tagged(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


x = torch.randn(1, 2, 8, 4)
state = torch.get_rng_state()
with Tagged() as mode:
    torch._fused_sdp_choice(x, x, x)
seen = f"tagged={mode.names} drew={not torch.equal(state, torch.get_rng_state())}"
print(seen)
assert seen == "tagged=['_fused_sdp_choice'] drew=False"
PYTHON
