#!/usr/bin/env bash
# torch 2.13.0: two calls of a custom operator that draws, tagged nondeterministic_seeded, are one draw in compiled code.
# AOTAutograd merges equal nodes and leaves random ones apart by a list of torch's own operators, not by their tag;
# so an operator without tensor arguments, which draws a seed, gives its second caller the first one's number.
# A constant argument that differs from call to call keeps them apart.
# Output seen: eager=2 compiled=1 numbered=2 (numbers that two calls got)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch

library = torch.library.Library("finding", "DEF")
library.define("draw(*, int call=0) -> Tensor", tags=(torch.Tag.pt2_compliant_tag, torch.Tag.nondeterministic_seeded))
torch.library.impl(library, "draw", "CompositeExplicitAutograd")(lambda *, call=0: torch.randint(0, 2**62, (1,)))
torch.library.register_fake("finding::draw")(lambda *, call=0: torch.empty(1, dtype=torch.int64))
draw = torch.ops.finding.draw


def alike(x):
    return x * draw(), x * draw()


def numbered(x):
    return x * draw(call=1), x * draw(call=2)


def different(function):
    return len({value.item() for value in function(torch.ones(1, dtype=torch.float64, requires_grad=True))})


compiled = lambda function: torch.compile(function, backend="aot_eager", fullgraph=True)
seen = f"eager={different(alike)} compiled={different(compiled(alike))} numbered={different(compiled(numbered))}"
print(seen)
assert seen == "eager=2 compiled=1 numbered=2"
PYTHON
