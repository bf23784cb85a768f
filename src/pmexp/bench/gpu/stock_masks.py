"""Compares rng="torch" with nn.Dropout, and checks tensors of more elements than an int32 counts."""

import gc
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.equality import (
    Dropout,
    check_all,
    difference,
    gradient_of,
    leaf,
    random,
    rng_state,
    share_alike,
)
from pmexp.bench.gpu.operators import DTYPES
from pmexp.packed_dropout import ops, packed_dropout, reference, torch_rng_record

OURS: Dropout = partial(packed_dropout, rng="torch")
_RATE = 0.3
_SEED = 9


def check_stock_masks(bench: Bench, dtype: torch.dtype) -> None:
    """Writes a row a case and checks that output, gradient and the generator's state afterwards are those of
    nn.Dropout."""
    wrong = [fault for case, x in _cases(bench, dtype) if (fault := _compare(bench, case, x))]
    bench.check(f"rng=torch is nn.Dropout bit for bit in {dtype}", not wrong, "; ".join(wrong))


def tell_record(bench: Bench) -> None:
    """Writes how the masks of rng="torch" came about in this process so far; on the CPU none is counted."""
    for event, count in torch_rng_record().items():
        bench.row("rng_torch_record", event=event, masks=count)
    otherwise = [event for event in torch_rng_record() if "draws otherwise" in event]
    if bench.device.type == "cuda":
        bench.check("nn.Dropout draws here as the mapping says", not otherwise, "; ".join(otherwise))


def check_beyond_int32(bench: Bench, dtype: torch.dtype, more: int) -> None:
    """Checks 2^31 and `more` elements: masks of ours at their ends by the definition, and rng=torch against
    nn.Dropout as a whole."""
    numel = (2**16 if bench.tiny else 2**31) + more
    _free()
    most = 7 * numel * dtype.itemsize  # two outputs, two gradients, the input, two masks
    if bench.device.type == "cuda" and torch.cuda.mem_get_info(bench.device)[0] < most:
        bench.left_out(f"{numel} elements in {dtype}: {most / 2**30:.0f} GiB are not free")
        return
    x = torch.empty(numel, dtype=dtype, device=bench.device)
    for start in range(0, numel, 2**28):
        x[start : start + 2**28].normal_()
    what = f"{numel} elements in {dtype}"
    check_all(bench, f"packed masks of {what}, by the definition", _ends(x))
    wrong = _compare(bench, "tiny" if bench.tiny else "beyond int32", x)
    bench.check(f"rng=torch is nn.Dropout bit for bit at {what}", not wrong, wrong)
    del x
    _free()


def tell_overlap(bench: Bench) -> None:
    """Notes that eight elements a thread take two Philox counters, of which torch's kernel reserves one."""
    for dtype in DTYPES[:3]:
        x = torch.ones(65536, dtype=dtype, device=bench.device)
        for name, drop in (("nn.Dropout", F.dropout), ("packed", packed_dropout)):
            torch.manual_seed(1)
            first, second = (drop(x).view(-1, 8) for _ in range(2))
            alike = share_alike(first[:, 4:], second[:, :4])
            bench.row("consecutive_masks", dropout=name, dtype=str(dtype), share_of_equal_bits=alike)
            if name == "packed":
                bench.check(f"consecutive packed masks in {dtype} are independent", abs(alike - 0.5) < 0.014)


def _cases(bench: Bench, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yields sizes and addresses that torch's kernel takes in vectors of 8, 4, 2 and 1. Float16 is as
    bfloat16."""
    make = partial(random, bench.device, dtype)
    yield "aligned", make(65536)
    yield "odd", make(65537)
    if dtype not in DTYPES[:2]:
        return
    yield "misaligned", make(65537)[1:]
    yield "in pairs", make(65538)
    yield "in fours", make(65540)
    yield "transposed", make(64, 96).t()
    yield "large", make(2**17 if bench.tiny else 3 * 2**22 + 16)
    yield "large and odd", make(2**17 + 1 if bench.tiny else 3 * 2**22 + 17)


def _compare(bench: Bench, case: str, x: Tensor) -> str:
    """Adds the row of a case; returns where something differs, "" for nowhere."""
    reproduced = torch_rng_record().get("reproduced", 0)
    (y, gradient, state), right = (_drop(drop, x) for drop in (OURS, F.dropout))
    named = zip(("output", "gradient", "generator"), (y, gradient, state), right, strict=True)
    wrong = [f"{case}, {name}: {text}" for name, a, b in named if (text := difference(a, b))]
    ours = torch_rng_record().get("reproduced", 0) - reproduced
    bench.row(
        "rng_torch",
        dtype=str(x.dtype),
        case=case,
        elements=x.numel(),
        equal=not wrong,
        drawn_by="one pass of ours" if ours else "torch's own draw",
    )
    return "; ".join(wrong)


def _drop(drop: Dropout, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the output, the gradient for an upstream one that is not constant, and the generator's state
    after."""
    torch.manual_seed(_SEED)
    x = leaf(x)
    y = drop(x, _RATE)
    return y.detach(), gradient_of(y, x, x.detach().contiguous()), rng_state(x.device)


def _ends(x: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Compares windows of 4096 elements at both ends, and about element 2^31 where there is one."""
    seed = torch.tensor([7], device=x.device)
    y, packed = ops.packed_dropout(x, seed, _RATE, 1)
    gradient = ops.apply_packed_mask(x, packed, _RATE, 1)
    for first in sorted({0, x.numel() // 4096 * 4096 - 4096, x.numel() // 4096 * 4096}):
        end = min(first + 4096, x.numel())
        keep = _kept(first, end - first, seed.cpu())
        dropped = reference.apply_mask(x[first:end].cpu(), keep, _RATE)
        case = f"elements {first} to {end}"
        yield f"mask of {case}", packed[first // 8 : -(-end // 8)], reference.pack_bits(keep)
        yield f"output of {case}", y[first:end], dropped
        yield f"gradient of {case}", gradient[first:end], dropped


def _kept(first: int, count: int, seed: Tensor) -> Tensor:
    """Returns the mask of `count` elements from `first` on, a multiple of 32, by the layout of
    reference.py."""
    blocks = -(-count // 32)
    counter = first // 4 + torch.arange(8 * blocks)
    zero, word = torch.zeros_like(counter), 0xFFFFFFFF
    key = (seed[0] & word, (seed[0] >> 32) & word)
    words = torch.stack(reference.philox((counter & word, counter >> 32, zero, zero), key))
    flat = words.view(4, blocks, 8).transpose(0, 1).reshape(-1)[:count]
    return flat < round((1.0 - _RATE) * 2**32)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
