"""`pmexp packed-dropout`, or `python -m pmexp.packed_dropout`, says what serves the method here.

It reads its arguments itself, since the method needs torch alone.
"""

import os
import sys

import torch
from torch import nn

from pmexp.packed_dropout import backend
from pmexp.packed_dropout.kernel_memory import attention_bytes, recurrent_bytes

_HELP = "packed dropout   says what serves the method on each kind of device; it has no keys"


def main() -> int:
    """Returns the exit code: 0 done, 2 bad input, 3 where there is no folder to build in."""
    given = sys.argv[1:]
    if given and {"-h", "--help"}.isdisjoint(given):
        print(f"error: {given[0]}: packed dropout takes no keys; leave it out", file=sys.stderr)
        return 2
    try:
        print(_HELP if given else "\n".join(_served()), flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # the folder in which the compiler works cannot be had, or is full
        why = error.strerror or error
        print(f"error: {why}; set TMPDIR to a folder that can be written, with room in it", file=sys.stderr)
        return 3
    return 0


def _served() -> list[str]:
    lines = []
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        place = torch.device(device)
        lines.append(f"packed dropout on {device}: {backend(place)}")
        inside = {"attention": attention_bytes(place, torch.float32)}
        inside |= {kind.__name__: recurrent_bytes(kind, place, torch.float32) for kind in (nn.LSTM, nn.GRU)}
        listed = ", ".join(f"{name} {size:g}" for name, size in inside.items())
        lines.append(
            f"kernels that drop inside keep for backward on {device}, bytes an element in fp32: {listed}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
