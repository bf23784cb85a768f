#!/usr/bin/env bash
# Pillow 13.0.0: a JPEG that draft() has read at half size has a size that is rounded up: 1365 pixels become 683.
# A box in the full picture has to be mapped by the power of two and not by the ratio of the two sizes: the pixels lie
# at multiples of 2, and by the ratio the far edge is off by half a pixel of the reduced picture.
# Output seen: half=683 ratio=1.9985 by_power=682.5 by_ratio=683.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import io

from PIL import Image

file = io.BytesIO()
Image.new("RGB", (1365, 1024)).save(file, "JPEG")
file.seek(0)
picture = Image.open(file)
picture.draft("RGB", (600, 400))
picture.load()
ratio = 1365 / picture.width
seen = f"half={picture.width} ratio={ratio:.4f} by_power={1365 / 2} by_ratio={1365 / ratio}"
print(seen)
assert seen == "half=683 ratio=1.9985 by_power=682.5 by_ratio=683.0"
PYTHON
