#!/usr/bin/env bash
# pillow 13.0.0: convert("RGB") scales a 16-bit colour PNG to 8 bits and clips a 16-bit gray one.
# Colour PNGs of 16 bits open in a mode of 8 bits, each value divided down (40000 becomes 156). A gray one opens as
# mode I;16, and convert("RGB") or convert("L") then sets every value above 255 to 255: all but the darkest 0.4 % of
# the range turns white. A data set that calls convert("RGB") on all of its pictures loses the gray ones unseen.
# Output seen: gray I;16 RGB=[0, 100, 255, 255, 255] L=[0, 100, 255, 255, 255] colour RGB=[0, 0, 3, 156, 255]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import io
import struct
import zlib

import numpy
from PIL import Image

VALUES = [0, 100, 1000, 40000, 65535]
GRAY, COLOUR = 0, 2


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def opened(colour_type, channels):
    header = struct.pack(">IIBBBBB", len(VALUES), 1, 16, colour_type, 0, 0, 0)
    row = b"\0" + numpy.repeat(VALUES, channels).astype(">u2").tobytes()
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + content))


def first_channel(picture):
    return numpy.atleast_3d(numpy.asarray(picture))[0, :, 0].tolist()


gray, colour = opened(GRAY, 1), opened(COLOUR, 3)
found = (
    f"gray {gray.mode} RGB={first_channel(gray.convert('RGB'))} L={first_channel(gray.convert('L'))} "
    f"colour RGB={first_channel(colour.convert('RGB'))}"
)
print(found)
expected = "gray I;16 RGB=[0, 100, 255, 255, 255] L=[0, 100, 255, 255, 255] colour RGB=[0, 0, 3, 156, 255]"
assert found == expected
PYTHON
