#!/usr/bin/env bash
# torch 2.13.0, CPU: under save_on_cpu, what was saved may be changed in place, and the gradient is wrong, silently.
# torch.autograd.graph.save_on_cpu "copies" to the CPU what is saved; of a tensor that is there already it keeps the
# tensor itself, and under saved-tensor hooks, of which this is one pair, autograd does not compare versions. exp saves
# its output: doubled in place before backward, it doubles the gradient, where backward without the context raises
# "modified by an inplace operation". Hooks that hand on what they get do the same, hooks that clone are right.
# (pin_memory=True was not tried.)
# Output seen:
# no context: y.detach().mul_(2)=RuntimeError y.mul_(2)=RuntimeError
# save_on_cpu: y.detach().mul_(2)=[2.0, 2.0] y.mul_(2)=[2.0, 2.0]
# hooks that hand on: y.detach().mul_(2)=[2.0, 2.0] y.mul_(2)=[2.0, 2.0]
# hooks that clone: y.detach().mul_(2)=[1.0, 1.0] y.mul_(2)=[1.0, 1.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from contextlib import nullcontext

import torch
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks


def times_the_right_gradient(context, scale, right_scale):
    x = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)
    right = right_scale * torch.cos(x) * torch.exp(torch.sin(x))
    with context:
        y = x.sin().exp()
    output = scale(y)
    try:
        (gradient,) = torch.autograd.grad(output.sum(), x)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error), error
        return "RuntimeError"
    return [round(factor, 9) for factor in (gradient / right).tolist()]


def behind_autograd(y):
    y.detach().mul_(2)
    return y  # for autograd still exp(sin(x))


def in_sight_of_autograd(y):
    return y.mul_(2)  # for autograd 2 exp(sin(x))


def line(name, context):
    behind = times_the_right_gradient(context(), behind_autograd, 1)
    in_sight = times_the_right_gradient(context(), in_sight_of_autograd, 2)
    return f"{name}: y.detach().mul_(2)={behind} y.mul_(2)={in_sight}"


found = [
    line("no context", nullcontext),
    line("save_on_cpu", save_on_cpu),
    line("hooks that hand on", lambda: saved_tensors_hooks(lambda saved: saved, lambda saved: saved)),
    line("hooks that clone", lambda: saved_tensors_hooks(lambda saved: saved.clone(), lambda saved: saved)),
]
print(*found, sep="\n")
assert found == [
    "no context: y.detach().mul_(2)=RuntimeError y.mul_(2)=RuntimeError",
    "save_on_cpu: y.detach().mul_(2)=[2.0, 2.0] y.mul_(2)=[2.0, 2.0]",
    "hooks that hand on: y.detach().mul_(2)=[2.0, 2.0] y.mul_(2)=[2.0, 2.0]",
    "hooks that clone: y.detach().mul_(2)=[1.0, 1.0] y.mul_(2)=[1.0, 1.0]",
]
PYTHON
