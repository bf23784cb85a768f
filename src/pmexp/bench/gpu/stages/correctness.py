"""Whether what runs on this device computes what it should."""

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.checks import check_masks


def measure(bench: Bench) -> None:
    with bench.part("packed masks"):
        check_masks(bench.device)
        bench.check("packed masks equal the reference's, bit for bit", True)
