"""."""

from pmexp.bench.gpu.bench import Bench


def measure(bench: Bench) -> None:
    bench.left_out("not written yet")
