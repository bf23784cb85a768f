"""Checks that what runs on this device computes what it should, bit for bit; what matters most comes
first."""

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import nn

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.checks import check_losses
from pmexp.bench.gpu.compile_ahead import compile_ahead
from pmexp.bench.gpu.equality import leaf
from pmexp.bench.gpu.operators import check_large, check_layouts, check_sizes, check_sums, check_widths
from pmexp.bench.gpu.stock_masks import check_beyond_int32, check_stock_masks, tell_overlap, tell_record
from pmexp.bench.gpu.surroundings import (
    DROPOUTS,
    check_checkpointing,
    check_compiled,
    check_graphs,
    check_streams,
)
from pmexp.bench.gpu.workload import SIZES, Size
from pmexp.errors import ContenderFailed
from pmexp.packed_dropout import PackedDropout, native
from pmexp.variants.seeded import SeededDropout

_MASKS_SHRINK = 7.5  # times at least, against nn.Dropout's bytes on CUDA
_TINY = Size(
    "tiny bert",
    2,
    16,
    {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99},
)


def measure(bench: Bench) -> None:
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
    bench.note(f"C compiler, without which Triton launches nothing: {compiler or 'none'}")
    if bench.device.type == "cuda":  # native calls have a stage of their own, and are built meanwhile
        native.choose("cuda", "python")
    compile_ahead(bench)
    bench.in_order(PIECES)


def check_steps(bench: Bench, attention: str, precision: str) -> None:
    """Checks that whole training steps with the same masks have the same losses."""
    what = f"losses of steps with the same masks, {attention} attention, {precision}"
    try:
        size = _TINY if bench.tiny else SIZES[0]
        bench.check(what, True, check_losses(size, attention, precision, bench.device))
    except ContenderFailed as error:
        bench.check(what, False, str(error))


def check_mask_bytes(bench: Bench) -> None:
    """Checks the device memory that forward holds for backward besides the output's."""
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


def _pieces() -> Mapping[str, Callable[[Bench], None]]:
    """Returns the pieces by what they check. Exhaustive products come behind what every run relies on."""
    pieces: dict[str, Callable[[Bench], None]]
    bf16, fp32, fp16, fp64 = torch.bfloat16, torch.float32, torch.float16, torch.float64
    sizes = {f"packed masks in {t}": partial(check_sizes, dtype=t) for t in (bf16, fp32, fp16, fp64)}
    stock = {f"rng=torch in {t}": partial(check_stock_masks, dtype=t) for t in (bf16, fp32, fp16, fp64)}
    losses = {
        f"losses, {attention} attention, {precision}": partial(
            check_steps, attention=attention, precision=precision
        )
        for precision in ("bf16", "fp32")
        for attention in ("eager", "sdpa")
    }
    compiled = {
        f"torch.compile, {name}, mode={mode}": partial(check_compiled, name=name, mode=mode)
        for mode in ("default", "reduce-overhead")
        for name in DROPOUTS
    }
    beyond = {
        f"{2**31 + more:,} elements in {dtype}": partial(check_beyond_int32, dtype=dtype, more=more)
        for dtype in (bf16, fp32)
        for more in (64, 77)
    }
    pieces = {
        **dict([*sizes.items()][:2]),
        "layouts": check_layouts,
        **dict([*stock.items()][:3]),
        "record of rng=torch": tell_record,
        "bytes that a mask keeps": check_mask_bytes,
        "checkpointing": check_checkpointing,
        **losses,
        **dict([*beyond.items()][:2]),
        "CUDA graphs": check_graphs,
        "consecutive masks": tell_overlap,
        **dict([*compiled.items()][:3]),
    }
    pieces |= {"streams": check_streams, "1 element, and 2 and 4 bits": check_widths, "bias": check_sums}
    return {**pieces, "a large mask": check_large, **sizes, **stock, **beyond, **compiled}


PIECES = _pieces()
