#!/usr/bin/env bash
# torch 2.13.0: forward mode over forward mode is silently 0 through an autograd.Function with a correct jvp.
# torch calls a Function's jvp with forward-mode tracking off, so the outer jvp or jacfwd takes the inner derivative
# for a constant. First derivatives are right, and so are second ones of which one order is reverse mode
# (torch.func.hessian among them). Seen for x**3 at 2, whose second derivative is 12; pytorch's issue 197867 reports it.
# Output seen: plain jvp(jvp)=12.0; Function jvp=12.0 jvp(jvp)=0.0 jacfwd(jacfwd)=0.0 hessian=12.0 jacrev(jacrev)=12.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.autograd import Function
from torch.func import hessian, jacfwd, jacrev, jvp


class Cube(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 3 * ctx.saved_tensors[0] ** 2

    @staticmethod
    def jvp(ctx, tangent):
        return tangent * 3 * ctx.saved_tensors[0] ** 2


def slope(function):
    return lambda x: jvp(function, (x,), (torch.ones_like(x),))[1]


def plain(x):
    return x**3


cube = Cube.apply
two = torch.tensor(2.0)
found = (
    f"plain jvp(jvp)={slope(slope(plain))(two).item()}; Function jvp={slope(cube)(two).item()} "
    f"jvp(jvp)={slope(slope(cube))(two).item()} jacfwd(jacfwd)={jacfwd(jacfwd(cube))(two).item()} "
    f"hessian={hessian(cube)(two).item()} jacrev(jacrev)={jacrev(jacrev(cube))(two).item()}"
)
print(found)
expected = (
    "plain jvp(jvp)=12.0; Function jvp=12.0 jvp(jvp)=0.0 jacfwd(jacfwd)=0.0 hessian=12.0 jacrev(jacrev)=12.0"
)
assert found == expected
PYTHON
