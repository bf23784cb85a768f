"""Finds the largest batch of BERT-Large at 512 tokens under bf16 autocast and eager attention."""

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.checks import check_losses
from pmexp.bench.gpu.largest import limited, measure_largest
from pmexp.bench.gpu.leftovers import free_memory
from pmexp.bench.gpu.workload import BASELINE, Workload, bert_large

_VARIANTS = (BASELINE, "pm-drop-recompute", "pm-drop")  # in the order of what matters most
_KEPT_FREE = 2**30  # bytes, for what is not the allocator's
_MOST, _TINY_MOST = 2**16, 24  # samples; the CPU's memory is not to be filled
_GIB = 2**30
_OF_A_CARD = 78 * _GIB  # what one of 80 GB has; a larger one is limited to it, so that pages compare


def measure(bench: Bench) -> None:
    size, precision, attention = bert_large(bench.tiny), "bf16", "eager"
    with bench.part("losses"):
        bench.check(check_losses(size, attention, precision, bench.device), True)
    free_memory()
    on_cuda = bench.device.type == "cuda"
    workload = Workload(size, attention, precision, bench.device, _VARIANTS)
    limit = limited(bench.device, _KEPT_FREE, _OF_A_CARD) if on_cuda else _GIB
    most = _MOST if on_cuda else _TINY_MOST
    bench.note(
        f"{size.name}, {size.length} tokens, {precision} autocast, {attention} attention: a step has room "
        f"where torch's allocator, which may take {limit / _GIB:.1f} GiB, gives all that it asks for"
    )
    baseline = 0
    for place, variant in enumerate(_VARIANTS):
        with bench.part(f"largest batch, {variant}"):
            largest = measure_largest(
                workload, variant, limit, most, bench.budget.part(len(_VARIANTS) - place)
            )
            if variant == BASELINE:
                baseline = largest.batch
            bench.row(
                "largest_batch",
                variant=variant,
                limit_GiB=round(limit / _GIB, 1),
                largest=largest.batch,
                too_large=largest.too_large,
                times_baseline=round(largest.batch / baseline, 3) if baseline else None,
            )
        free_memory()
