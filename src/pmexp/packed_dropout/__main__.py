"""``python -m pmexp.packed_dropout`` says what serves the method here; it has no keys."""

import sys

import torch
from torch import nn

from pmexp.packed_dropout import backend
from pmexp.packed_dropout.kernel_memory import attention_bytes, recurrent_bytes

_HELP = "python -m pmexp.packed_dropout   says what serves the method on each kind of device; it has no keys"

given = sys.argv[1:]
if {"-h", "--help"} & set(given):
    print(_HELP)
elif given:
    print(f"error: {given[0]}: pmexp.packed_dropout takes no keys; leave it out", file=sys.stderr)
    sys.exit(2)
else:
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        place = torch.device(device)
        print(f"packed dropout on {device}: {backend(place)}")
        inside = {"attention": attention_bytes(place, torch.float32)}
        inside |= {kind.__name__: recurrent_bytes(kind, place, torch.float32) for kind in (nn.LSTM, nn.GRU)}
        listed = ", ".join(f"{name} {size:g}" for name, size in inside.items())
        print(f"kernels that drop inside keep for backward on {device}, bytes an element in fp32: {listed}")
