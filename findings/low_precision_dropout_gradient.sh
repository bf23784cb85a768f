#!/usr/bin/env bash
# torch 2.13.0, CPU, bfloat16 and float16: the gradient of dropout need not be that of the function which ran.
# Dropout is y = c * x on the kept elements, so with x = 7 and an incoming gradient of 7 output and gradient must
# agree. torch.native_dropout rounds c = 1/(1-p) to the tensor's dtype in forward and not in backward; F.dropout in
# eager mode rounds it in both; F.dropout compiled with the backend aot_eager rounds it in forward only, so that
# compiling changes the gradient and not the output. In float32 all agree. (p = 0.1.)
# Output seen, output/gradient of the kept elements:
# bfloat16 native=7.75/7.78125 eager=7.75/7.75 compiled=7.75/7.78125
# float16 native=7.78125/7.77734375 eager=7.78125/7.78125 compiled=7.78125/7.77734375
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
import torch.nn.functional as F


def kept(drop, dtype):
    x = torch.full((1000,), 7.0, dtype=dtype, requires_grad=True)
    y = drop(x)
    y.backward(torch.full_like(x, 7.0))
    assert torch.equal(y != 0, x.grad != 0)
    return f"{y.max().item()}/{x.grad.max().item()}"


drops = {
    "native": lambda x: torch.native_dropout(x, 0.1, True)[0],
    "eager": lambda x: F.dropout(x, 0.1),
    "compiled": torch.compile(lambda x: F.dropout(x, 0.1), backend="aot_eager"),
}
found = {dtype: {name: kept(drop, dtype) for name, drop in drops.items()} for dtype in (torch.bfloat16, torch.float16)}
for dtype, values in found.items():
    print(str(dtype).removeprefix("torch."), *(f"{name}={value}" for name, value in values.items()))
assert found == {
    torch.bfloat16: {"native": "7.75/7.78125", "eager": "7.75/7.75", "compiled": "7.75/7.78125"},
    torch.float16: {
        "native": "7.78125/7.77734375",
        "eager": "7.78125/7.78125",
        "compiled": "7.78125/7.77734375",
    },
}
exact = {name: kept(drop, torch.float32) for name, drop in drops.items()}
assert len({part for value in exact.values() for part in value.split("/")}) == 1, exact
PYTHON
