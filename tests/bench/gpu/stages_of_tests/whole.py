"""A stage that finds something of every kind, and one part of which fails."""

from pmexp.bench.gpu.bench import Bench


def measure(bench: Bench) -> None:
    bench.row("speed", what="first", both_us=1.5, elements=4096)
    with bench.part("the middle"):
        bench.row("speed", what="second", note_of="a|b")
        raise ValueError("no such kernel\nand more of it")
    bench.check("one is one", True)
    bench.check("one is two", 1 == 2, "it is one")
    bench.note(f"on {bench.device}, tiny is {bench.tiny}")
    bench.left_out("the rest")
