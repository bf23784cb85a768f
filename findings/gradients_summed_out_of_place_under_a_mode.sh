#!/usr/bin/env bash
# torch 2.13.0: while any TorchDispatchMode is active, also one that only passes every call on, backward sums the
# gradients of a tensor that is used several times out of place: the sum is a new tensor, where it is else added into
# the first one. So a mode that counts memory raises the peak that it counts. Here a tensor of 4 MB is used three
# times; by torch's profiler of allocations backward's peak is 2 new tensors without a mode and 3 under one.
# Output seen:
# mode=False peak_in_tensors=2
# mode=True peak_in_tensors=3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat >"$folder/peak.py" <<'PYTHON'
import sys
from contextlib import nullcontext

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode


class PassOn(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


with_mode = sys.argv[1] == "True"
x = torch.ones(1000, 1000, requires_grad=True)
w = x * 1
y = (w * 2).sum() + (w * 3).sum() + (w * 4).sum()
with PassOn() if with_mode else nullcontext():
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        y.backward()
held = peak = 0
events = [e for e in measured.profiler.kineto_results.events() if e.name() == "[memory]"]
for event in sorted(events, key=lambda e: e.start_ns()):
    held += event.nbytes()
    peak = max(peak, held)
tensors = round(peak / x.nbytes)
print(f"mode={with_mode} peak_in_tensors={tensors}")
assert tensors == (3 if with_mode else 2)
PYTHON
for mode in False True; do KINETO_LOG_LEVEL=6 "$folder/venv/bin/python" -W ignore "$folder/peak.py" $mode; done
