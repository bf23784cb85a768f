"""Measures parts of the system stack: Tempo, attention kernels, offload, and LoRA where peft is there."""

from pmexp.bench.gpu.attention_kernels import attention_kernels, device_kernels, other_kernels
from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.budget import Budget
from pmexp.bench.gpu.leftovers import Leftovers
from pmexp.bench.gpu.lora import lora
from pmexp.bench.gpu.offloading import offloading
from pmexp.bench.gpu.tempo_steps import tempo

_PIECES = (  # in the order of what matters, with shares of the time
    ("Tempo", tempo, 30),
    ("attention kernels", attention_kernels, 18),
    ("offload", offloading, 22),
    ("LoRA", lora, 14),
    ("other attention kernels", other_kernels, 8),
    ("the profiler's names of attention kernels", device_kernels, 4),
)


def measure(bench: Bench) -> None:
    leftovers = Leftovers(bench)
    for place, (name, piece, share) in enumerate(_PIECES):
        seconds = bench.budget.left * share / sum(later for _, _, later in _PIECES[place:])
        leftovers.check(name)
        with bench.part(name):
            piece(bench, Budget(seconds))
