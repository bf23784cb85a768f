#!/usr/bin/env bash
# torchao 0.18.0 on torch 2.13.0: a step of AdamW8bit raises under torch.utils.flop_counter.FlopCounterMode, or any other
# TorchDispatchMode of a user's, and from then on also without one. The optimizer compiles the update of each parameter
# with fullgraph=True; torch.compile stands aside where such a mode is active, which fullgraph makes an error, and keeps
# to that for the function until torch._dynamo.reset(). An optimizer that is not compiled, such as torch.optim.AdamW, is
# counted as one expects. So who counts the operations of a whole training step has to leave the mode before the update.
# Output seen: AdamW=counted AdamW8bit=RuntimeError AdamW8bit_later=RuntimeError after_reset=stepped
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy setuptools
"$folder/venv/bin/pip" install --quiet --no-deps torchao==0.18.0
export TORCHINDUCTOR_CACHE_DIR="$folder/cache"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchao.optim import AdamW8bit


def step(optimizer_class, counted):
    layer = torch.nn.Linear(64, 128)
    optimizer = optimizer_class(layer.parameters(), lr=1e-3)
    layer(torch.randn(8, 64)).sum().backward()
    try:
        if not counted:
            optimizer.step()
            return "stepped"
        with FlopCounterMode(display=False):
            optimizer.step()
    except RuntimeError as error:
        assert "no compiled frames" in str(error), error
        return "RuntimeError"
    return "counted"


plain, beside, later = step(torch.optim.AdamW, True), step(AdamW8bit, True), step(AdamW8bit, False)
torch._dynamo.reset()
reset = step(AdamW8bit, False)
seen = f"AdamW={plain} AdamW8bit={beside} AdamW8bit_later={later} after_reset={reset}"
print(seen)
assert seen == "AdamW=counted AdamW8bit=RuntimeError AdamW8bit_later=RuntimeError after_reset=stepped"
PYTHON
