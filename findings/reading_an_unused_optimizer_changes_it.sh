#!/usr/bin/env bash
# torch 2.13.0: get_optimizer_state_dict of torch.distributed.checkpoint, called before the first step, changes training.
# It wants all states to be there and takes a step with gradients of zero and lr=0, which leaves the weights alone and
# the step count of Adam and AdamW at 1. The first real step is then corrected as a second one: 0.74 of its size. So it
# is for get_state_dict, and thus for who saves a checkpoint of step 0 or reads the optimizer's size by it. SGD, RMSprop
# and Adagrad with default options step as before. pytorch's issue 164929 reports it.
# Output seen (a weight of 1 after its first step with lr=0.1, without weight decay):
# AdamW: alone 0.9, after its state was read 0.9256
# SGD: alone 0.9, after its state was read 0.9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat >"$folder/read.py" <<'PYTHON'
import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict


def first_step(optimizer_class, read, **options):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = optimizer_class(model.parameters(), lr=0.1, **options)
    if read:
        get_optimizer_state_dict(model, optimizer)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    return round(model.weight.item(), 4)


seen = {}
for optimizer_class, options in [(torch.optim.AdamW, {"weight_decay": 0.0}), (torch.optim.SGD, {})]:
    alone, after = (first_step(optimizer_class, read, **options) for read in (False, True))
    seen[optimizer_class.__name__] = alone, after
    print(f"{optimizer_class.__name__}: alone {alone}, after its state was read {after}")
assert seen == {"AdamW": (0.9, 0.9256), "SGD": (0.9, 0.9)}
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/read.py" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
