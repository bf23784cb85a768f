#!/usr/bin/env bash
# pillow 13.0.0: a TIFF whose photometric tag says WhiteIsZero is inverted when it has 8 bits, and is not with 16 bits.
# TIFF allows gray pictures that count from white (0) up to black. Pillow turns those of 8 bits round on opening, so
# that 0 is black; those of 16 bits open as mode I;16 with the numbers as stored: the picture comes out as a
# negative, without a warning.
# Output seen: 8 bits L [255, 254, 0]; 16 bits I;16 [0, 257, 65535]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import io
import struct

import numpy
from PIL import Image


def white_is_zero(bits, values):
    """Return a one-row little-endian TIFF with PhotometricInterpretation 0."""
    pixels = numpy.array(values, dtype=f"<u{bits // 8}").tobytes()
    pixels += bytes(len(pixels) % 2)
    short, long = 3, 4
    entries = [
        (256, short, len(values)),  # ImageWidth
        (257, short, 1),  # ImageLength
        (258, short, bits),  # BitsPerSample
        (259, short, 1),  # Compression: none
        (262, short, 0),  # PhotometricInterpretation: WhiteIsZero
        (273, long, 8),  # StripOffsets
        (277, short, 1),  # SamplesPerPixel
        (278, short, 1),  # RowsPerStrip
        (279, long, len(values) * bits // 8),  # StripByteCounts
    ]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels))
    return head + pixels + struct.pack("<H", len(entries)) + directory + bytes(4)


def opened(bits, values):
    picture = Image.open(io.BytesIO(white_is_zero(bits, values)))
    return f"{bits} bits {picture.mode} {numpy.asarray(picture)[0].tolist()}"


found = f"{opened(8, [0, 1, 255])}; {opened(16, [0, 257, 65535])}"
print(found)
assert found == "8 bits L [255, 254, 0]; 16 bits I;16 [0, 257, 65535]"
PYTHON
