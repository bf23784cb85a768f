#!/usr/bin/env bash
# kornia 0.9.0: operations of its RandAugment have the names of Pillow's and torchvision's, and another law.
# Contrast multiplies without the mean of the picture, so that a flat grey one changes, which stays as it is there;
# solarize_add draws its threshold at each call, which is 128 of 255 in RandAugment.
# Output seen: flat_grey_changes=True thresholds_differ=True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy kornia==0.9.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from kornia.augmentation.auto.operations import Contrast, SolarizeAdd

torch.manual_seed(0)
grey = torch.full((1, 3, 4, 4), 0.25)
changes = any(not torch.equal(Contrast(initial_probability=1.0)(grey), grey) for _ in range(8))
thresholds = set()
for _ in range(8):
    operation = SolarizeAdd(initial_probability=1.0)
    operation(grey)
    thresholds.add(round(operation.op._params["thresholds"].item(), 4))
seen = f"flat_grey_changes={changes} thresholds_differ={len(thresholds) > 1}"
print(seen)
assert seen == "flat_grey_changes=True thresholds_differ=True"
PYTHON
