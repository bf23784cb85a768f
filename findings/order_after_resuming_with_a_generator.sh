#!/usr/bin/env bash
# torchdata 0.11.0 on torch 2.13.0: a StatefulDataLoader with shuffle=True, num_workers=0 and a generator of its own goes on
# rightly with the epoch in which its state was taken, and shuffles every later epoch otherwise than the run left alone,
# though the generator is seeded alike in both. A resumed training is then another training from its next epoch on,
# without an error. With num_workers=1, or without a generator, all orders are those of the run left alone.
# Output seen (state taken in epoch 1; whether the orders are those of a run without a break):
# no generator, workers 0: epoch 1 True, epochs 2 and 3 True
# no generator, workers 1: epoch 1 True, epochs 2 and 3 True
# a generator, workers 0: epoch 1 True, epochs 2 and 3 False
# a generator, workers 1: epoch 1 True, epochs 2 and 3 True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchdata==0.11.0 numpy==2.4.6
cat >"$folder/resume.py" <<'PYTHON'
import torch
from torchdata.stateful_dataloader import StatefulDataLoader


def loader(seeded, workers):
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(5) if seeded else None
    return StatefulDataLoader(range(24), batch_size=2, shuffle=True, num_workers=workers, generator=generator)


def epochs(loader, count):
    return [torch.cat(list(loader)).tolist() for _ in range(count)]


seen = {}
for seeded in (False, True):
    for workers in (0, 1):
        whole = epochs(loader(seeded, workers), 3)
        broken_off = loader(seeded, workers)
        next(iter(broken_off))
        resumed = loader(seeded, workers)
        resumed.load_state_dict(broken_off.state_dict())
        rest = epochs(resumed, 3)
        seen[seeded, workers] = whole[0][2:] == rest[0], whole[1:] == rest[1:]
        name = f"{'a' if seeded else 'no'} generator, workers {workers}"
        print(f"{name}: epoch 1 {seen[seeded, workers][0]}, epochs 2 and 3 {seen[seeded, workers][1]}")
assert seen == {case: (True, case != (True, 0)) for case in seen}
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/resume.py" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
