#!/usr/bin/env bash
# torch 2.13.0: giving an autograd.Function a jvp makes torch.compile(fullgraph=True) refuse it in reverse mode too.
# The compiled function only uses reverse mode, and the class compiles without the method; with it, tracing stops at
# apply ("Unsupported custom jvp") as soon as an input requires a gradient. Under no_grad the same class compiles, and
# without fullgraph the call becomes a graph break, with the right gradient.
# Output seen: without=2.0 with_jvp=Unsupported no_grad=2.0 graph_break=2.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch._dynamo.exc import Unsupported
from torch.autograd import Function


class Double(Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class DoubleBothWays(Double):
    @staticmethod
    def jvp(ctx, tangent):
        return 2 * tangent


def gradient(function, fullgraph):
    torch._dynamo.reset()
    x = torch.ones(1, requires_grad=True)
    compiled = torch.compile(lambda x: function.apply(x) + 0, backend="eager", fullgraph=fullgraph)
    try:
        compiled(x).backward()
    except Unsupported as error:
        assert "custom jvp" in str(error), error
        return "Unsupported"
    return x.grad.item()


without, both = gradient(Double, True), gradient(DoubleBothWays, True)
graph_break = gradient(DoubleBothWays, False)
torch._dynamo.reset()
with torch.no_grad():
    compiled = torch.compile(lambda x: DoubleBothWays.apply(x) + 0, backend="eager", fullgraph=True)
    value = compiled(torch.ones(1, requires_grad=True)).item()
found = f"without={without} with_jvp={both} no_grad={value} graph_break={graph_break}"
print(found)
assert found == "without=2.0 with_jvp=Unsupported no_grad=2.0 graph_break=2.0"
PYTHON
