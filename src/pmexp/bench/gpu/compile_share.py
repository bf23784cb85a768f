"""`python -m pmexp.bench.gpu.compile_share DEVICE SIZE PLACE SHARES SECONDS` runs a share of the correctness
checks, only for the kernels that Triton and torch.compile then have in their caches on the disk.
"""

import os
import sys

import torch

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget, TimeIsUp, time_limit
from pmexp.bench.gpu.stages import correctness


def main(device_name: str, size: str, place: str, shares: str, seconds: str) -> int:
    """Returns 0 where every check of the share was run, 3 where the time was over."""
    budget = Budget(float(seconds))
    device = torch.device(device_name, 0) if device_name == "cuda" else torch.device(device_name)
    share = dict([*correctness.PIECES.items()][int(place) :: int(shares)])
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        try:
            with time_limit(budget.left):
                Bench(device, size == "tiny", budget, nowhere).in_order(share)
        except TimeIsUp:
            return 3
    return 0


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))  # no compiler's workers are waited for
