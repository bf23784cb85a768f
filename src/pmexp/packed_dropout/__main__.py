"""``python -m pmexp.packed_dropout`` says what serves the method here; it has no keys."""

import sys

import torch

from pmexp.packed_dropout import backend

_HELP = "python -m pmexp.packed_dropout   says what serves the method on each kind of device; it has no keys"

given = sys.argv[1:]
if {"-h", "--help"} & set(given):
    print(_HELP)
elif given:
    print(f"error: {given[0]}: pmexp.packed_dropout takes no keys; leave it out", file=sys.stderr)
    sys.exit(2)
else:
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        print(f"packed dropout on {device}: {backend(torch.device(device))}")
