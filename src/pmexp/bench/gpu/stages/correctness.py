"""Whether what runs on this device computes what it should, bit for bit; the most used first."""

import os
import shutil

import torch
from torch import nn

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.checks import check_losses
from pmexp.bench.gpu.equality import leaf
from pmexp.bench.gpu.operators import check_operators
from pmexp.bench.gpu.stock_masks import check_beyond_int32, check_stock_masks, tell_overlap, tell_record
from pmexp.bench.gpu.surroundings import check_checkpointing, check_compiled, check_graphs, check_streams
from pmexp.bench.gpu.workload import SIZES, Size
from pmexp.errors import ContenderFailed
from pmexp.packed_dropout import PackedDropout, SeededDropout

_MASKS_SHRINK = 7.5  # times at least, against nn.Dropout's bytes on CUDA
_TINY = Size(
    "tiny bert",
    2,
    16,
    {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99},
)


def measure(bench: Bench) -> None:
    """What could leave the device or its generator unusable comes last: captures that end by an error."""
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
    bench.note(f"C compiler, without which Triton launches nothing: {compiler or 'none'}")
    check_operators(bench)
    check_stock_masks(bench)
    with bench.part("record of rng=torch"):
        tell_record(bench)
    with bench.part("bytes that a mask keeps"):
        check_mask_bytes(bench)
    check_checkpointing(bench)
    check_all_losses(bench)
    for dtype in (torch.bfloat16, torch.float32):
        with bench.part(f"more elements than an int32 counts, {dtype}"):
            check_beyond_int32(bench, dtype)
    with bench.part("overlap of consecutive masks"):
        tell_overlap(bench)
    check_streams(bench)
    check_graphs(bench)
    check_compiled(bench)


def check_all_losses(bench: Bench) -> None:
    """Whole training steps with the same masks have the same losses."""
    size = _TINY if bench.tiny else SIZES[0]
    for precision in ("bf16", "fp32"):
        for attention in ("eager", "sdpa"):
            what = f"losses of steps with the same masks, {attention} attention, {precision}"
            with bench.part(what):
                try:
                    bench.check(what, True, check_losses(size, attention, precision, bench.device))
                except ContenderFailed as error:
                    bench.check(what, False, str(error))


def check_mask_bytes(bench: Bench) -> None:
    """Device memory that is gone between forward and backward besides the output's."""
    if bench.device.type != "cuda":
        bench.left_out("bytes that a mask keeps: torch counts no memory of the CPU")
        return
    numel = 2**26
    x = leaf(torch.randn(numel, dtype=torch.bfloat16, device=bench.device))
    kept = {}
    modules = {
        "nn.Dropout": nn.Dropout(0.1),
        "packed": PackedDropout(0.1),
        "packed, rng=torch": PackedDropout(0.1, rng="torch"),
        "seeded": SeededDropout(0.1),
    }
    for name, drop in modules.items():
        drop(x).backward(x)  # compiles, and leaves the gradient that is counted in before as well as after
        before = torch.cuda.memory_allocated(bench.device)
        y = drop(x)
        kept[name] = torch.cuda.memory_allocated(bench.device) - before - y.untyped_storage().nbytes()
        bench.row("mask_bytes", dropout=name, elements=numel, bytes_an_element=kept[name] / numel)
        del y
    for name in ("packed", "packed, rng=torch"):
        ratio = kept["nn.Dropout"] / kept[name]
        bench.check(
            f"the mask of {name} is {_MASKS_SHRINK} times smaller", ratio >= _MASKS_SHRINK, f"{ratio:.2f}"
        )
