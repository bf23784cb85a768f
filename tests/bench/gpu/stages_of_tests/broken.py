"""A stage that fails outside any part."""

from pmexp.bench.gpu.bench import Bench


def measure(bench: Bench) -> None:
    bench.row("speed", what="before")
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
