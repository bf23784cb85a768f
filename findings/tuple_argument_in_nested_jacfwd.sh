#!/usr/bin/env bash
# torch 2.13.0: a tuple or list among an autograd.Function's arguments works in every transform but jacfwd of jacfwd.
# The Function has generate_vmap_rule = True, and the tuple holds plain numbers. vmap of vmap, jacfwd, jacrev and their
# two mixed nestings are right; jacfwd of jacfwd raises "treespec.unflatten(leaves)". The same numbers as arguments
# of their own work there too. (The function is linear, so 0 is the right second derivative.)
# Output seen:
# separate: vmap(vmap)=6.0 jacfwd=6.0 jacrev=6.0 jacfwd(jacrev)=0.0 jacrev(jacfwd)=0.0 jacfwd(jacfwd)=0.0
# tuple: vmap(vmap)=6.0 jacfwd=6.0 jacrev=6.0 jacfwd(jacrev)=0.0 jacrev(jacfwd)=0.0 jacfwd(jacfwd)=ValueError
# list: vmap(vmap)=6.0 jacfwd=6.0 jacrev=6.0 jacfwd(jacrev)=0.0 jacrev(jacfwd)=0.0 jacfwd(jacfwd)=ValueError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.autograd import Function
from torch.func import jacfwd, jacrev, vmap


class Separate(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, a, b):
        return x * a * b

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.a, ctx.b = inputs

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.a * ctx.b, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return tangent * ctx.a * ctx.b


class Together(Separate):
    @staticmethod
    def forward(x, factors):
        return x * factors[0] * factors[1]

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.a, ctx.b = inputs[1]

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.a * ctx.b, None


def line(name, function):
    transforms = {
        "vmap(vmap)": lambda x: vmap(vmap(function))(x.expand(1, 1)),
        "jacfwd": jacfwd(function),
        "jacrev": jacrev(function),
        "jacfwd(jacrev)": jacfwd(jacrev(function)),
        "jacrev(jacfwd)": jacrev(jacfwd(function)),
        "jacfwd(jacfwd)": jacfwd(jacfwd(function)),
    }
    values = []
    for transform, call in transforms.items():
        try:
            values.append(f"{transform}={call(torch.tensor(1.0)).item()}")
        except ValueError as error:
            assert "treespec" in str(error), error
            values.append(f"{transform}=ValueError")
    return f"{name}: {' '.join(values)}"


found = [
    line("separate", lambda x: Separate.apply(x, 2.0, 3.0)),
    line("tuple", lambda x: Together.apply(x, (2.0, 3.0))),
    line("list", lambda x: Together.apply(x, [2.0, 3.0])),
]
print(*found, sep="\n")
right = "vmap(vmap)=6.0 jacfwd=6.0 jacrev=6.0 jacfwd(jacrev)=0.0 jacrev(jacfwd)=0.0"
assert found == [
    f"separate: {right} jacfwd(jacfwd)=0.0",
    f"tuple: {right} jacfwd(jacfwd)=ValueError",
    f"list: {right} jacfwd(jacfwd)=ValueError",
]
PYTHON
