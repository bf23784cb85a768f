#!/usr/bin/env bash
# torch 2.13.0, x86 CPU: F.gelu and F.silu are element-wise, and yet their last bits depend on torch.get_num_threads(). Each
# thread computes its share by vectors and the rest behind the last whole vector by scalar code, which rounds otherwise; the
# number of threads decides where the shares end. Up to 16,384 elements one thread does all and nothing differs. Exact tests
# between machines with other numbers of cores, and activations computed again in backward, meet it.
# Output seen (the numbers of elements that differ vary with the CPU's vectors):
# gelu of 16000 elements: 0 differ between 1 and 3 threads
# gelu of 100003 elements: some differ between 1 and 3 threads
# silu of 100003 elements: some differ between 1 and 3 threads
# relu of 100003 elements: 0 differ between 1 and 3 threads
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat >"$folder/threads.py" <<'PYTHON'
import torch
import torch.nn.functional as F


def differing(function, elements: int) -> int:
    """How many elements of a float64 result differ between 1 and 3 threads."""
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(torch.cat([function(part) for part in inputs[:, :elements]]).view(torch.int64))
    return int((results[0] != results[1]).sum())


torch.manual_seed(0)
inputs = torch.randn(50, 100_003, dtype=torch.float64)
cases = (("gelu", 16_000, False), ("gelu", 100_003, True), ("silu", 100_003, True), ("relu", 100_003, False))
for name, elements, differs in cases:
    count = differing(getattr(F, name), elements)
    assert (count > 0) == differs and count < 0.001 * inputs.numel(), (name, elements, count)
    print(f"{name} of {elements} elements: {'some' if count else 0} differ between 1 and 3 threads")
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/threads.py"
