#!/usr/bin/env bash
# torch 2.13.0, CPU: converting float64 to float16 or bfloat16 rounds twice, by way of float32.
# Tensor.to and torch.tensor(..., dtype=) give the result of rounding to float32 and that to the half type; a number
# just above the middle of two halves becomes the middle in float32 and then goes to the even neighbour, the wrong
# one. numpy rounds once. A reference in float64 that is rounded to float16 by torch may thus differ by one unit
# in the last place from the one rounded by numpy.
# Output seen: float16: torch=6.8828125 by_float32=6.8828125 numpy=6.88671875; bfloat16: torch=1.0 nearest=1.0078125
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy
import torch

value = 6.884765728352378  # between the neighbours 6.8828125 and 6.88671875, nearer to the second
double = torch.tensor(value, dtype=torch.float64)
by_torch = double.to(torch.float16).item()
assert torch.tensor(value, dtype=torch.float16).item() == by_torch
by_float32 = double.to(torch.float32).to(torch.float16).item()
by_numpy = float(numpy.float64(value).astype(numpy.float16))
assert abs(by_numpy - value) < abs(by_torch - value)

low, high = 1.0, 1.0 + 2.0**-7  # neighbours in bfloat16
above_middle = 1.0 + 2.0**-8 + 2.0**-40
brain = torch.tensor(above_middle, dtype=torch.float64).to(torch.bfloat16).item()
nearest = min(low, high, key=lambda neighbour: abs(neighbour - above_middle))
found = (
    f"float16: torch={by_torch} by_float32={by_float32} numpy={by_numpy}; bfloat16: torch={brain} nearest={nearest}"
)
print(found)
expected = (
    "float16: torch=6.8828125 by_float32=6.8828125 numpy=6.88671875; bfloat16: torch=1.0 nearest=1.0078125"
)
assert found == expected
PYTHON
