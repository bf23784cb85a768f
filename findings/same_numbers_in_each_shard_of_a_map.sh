#!/usr/bin/env bash
# datasets 5.2.0, Linux: Dataset.map with num_proc draws the same numbers in every shard. The worker processes are forks,
# each with the parent's state of numpy's and torch's global generators, and map does not reseed them as a DataLoader
# does: with 4 processes, noise, negatives or splits that a function draws repeat four times over the dataset. Python's
# own `random` reseeds itself in a fork, so its numbers differ, and random.seed has no say in them. The result is cached
# like any other.
# Output seen (8 rows, num_proc=2, everything seeded):
# numpy: the shards have the same numbers True, as another run with this seed True
# torch: the shards have the same numbers True, as another run with this seed True
# random: the shards have the same numbers False, as another run with this seed False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 datasets==5.2.0
cat >"$folder/draw.py" <<'PYTHON'
import random

import datasets
import numpy as np
import torch

datasets.disable_progress_bars()
rows = datasets.Dataset.from_dict({"x": list(range(8))})


def draw(row):
    return {"numpy": np.random.rand(), "torch": torch.rand(()).item(), "random": random.random()}


def run():
    np.random.seed(0), torch.manual_seed(0), random.seed(0)
    drawn = rows.map(draw, num_proc=2, load_from_cache_file=False)
    return {name: drawn[name][:] for name in ("numpy", "torch", "random")}


first, second = run(), run()
seen = {name: (numbers[:4] == numbers[4:], numbers == second[name]) for name, numbers in first.items()}
for name, (shards, runs) in seen.items():
    print(f"{name}: the shards have the same numbers {shards}, as another run with this seed {runs}")
assert seen == {"numpy": (True, True), "torch": (True, True), "random": (False, False)}
PYTHON
HF_HOME="$folder/hf" "$folder/venv/bin/python" -W ignore "$folder/draw.py" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
