"""Compares the operators on this device with their definition in plain torch, bit for bit."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pmexp.bench.gpu.bench import Bench
from pmexp.bench.gpu.equality import check_all, random
from pmexp.packed_dropout import ops, reference

DTYPES = (torch.bfloat16, torch.float32, torch.float16, torch.float64)
# Triton compiles anew for a size of 1 and for multiples of 16; each takes half a second.
_SIZES = (1001, 7, 8, 9, 31, 33, 65537, 65536)
_WIDTHS = ((1, 1), (2, 1001), (4, 1001), (2, 65536))  # bits a value, elements
_RATES = (0.1, 0.5, 1 / 3, 1e-9)
_LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, 2),
    "channels last": lambda x: x[None].contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: x[::2, 1:, ::3],
    "misaligned": lambda x: x.flatten()[1:],
    "expanded": lambda x: x[:1].expand(5, -1, -1),
}
Compared = Iterator[tuple[str, Tensor, Tensor]]  # what is compared, as computed here, as defined


def check_sizes(bench: Bench, dtype: torch.dtype) -> None:
    check_all(bench, f"packed masks and products in {dtype}", _sizes(bench.device, dtype))


def check_widths(bench: Bench) -> None:
    check_all(bench, "packed masks of 1 element, and at 2 and 4 bits", _widths(bench.device))


def check_layouts(bench: Bench) -> None:
    check_all(bench, "packed masks of layouts that are not contiguous", _layouts(bench.device))


def check_sums(bench: Bench) -> None:
    check_all(bench, "bias + dropout + residual in one kernel", _sums(bench.device))


def check_large(bench: Bench) -> None:
    check_all(bench, "every element of a large packed mask", _large(bench))


def _sizes(device: torch.device, dtype: torch.dtype) -> Compared:
    for numel in _SIZES:
        for p in _RATES:
            yield from _against_reference(random(device, dtype, numel, seed=numel), p, 1)


def _widths(device: torch.device) -> Compared:
    for bits, numel in _WIDTHS:
        yield from _against_reference(random(device, torch.bfloat16, numel), 0.3, bits)


def _layouts(device: torch.device) -> Compared:
    for name, layout in _LAYOUTS.items():
        x = layout(random(device, torch.float32, 6, 9, 11))
        for case, got, right in _against_reference(x, 0.4, 1):
            yield f"{name}: {case}", got, right


def _against_reference(x: Tensor, p: float, bits: int) -> Compared:
    """Compares with torch's rounding on the CPU; the kernels round on the device."""
    on_cpu, seed = x.cpu(), torch.tensor([2**40 + x.numel()])
    keep = reference.draw_mask(on_cpu.shape, seed, p)
    packed, dropped = reference.pack_bits(keep, bits), reference.apply_mask(on_cpu, keep, p)
    seed_on_device = seed.to(x.device)
    y, mask = ops.packed_dropout(x, seed_on_device, p, bits)
    case = f"{tuple(x.shape)}, p = {p:g}, {bits} bit"
    yield f"mask of {case}", mask, packed
    yield f"output of {case}", y, dropped
    yield f"gradient of {case}", ops.apply_packed_mask(x, mask, p, bits), dropped
    yield f"unpacked mask of {case}", ops.unpack_bits(mask, list(x.shape), bits), keep
    yield f"packing of {case}", ops.pack_bits(keep.to(x.device), bits), packed
    if bits == 1 and x.dtype is torch.bfloat16:
        yield f"seeded {case}", ops.seeded_dropout(x, seed_on_device, p), dropped


def _sums(device: torch.device) -> Compared:
    for dtype in (torch.bfloat16, torch.float32):
        for rows, columns in ((3, 33), (64, 768)):
            x, residual = (random(device, dtype, rows, columns, seed=seed) for seed in (1, 2))
            for bias in (None, random(device, dtype, columns, seed=3)):
                seed, on_cpu = torch.tensor([-7]), None if bias is None else bias.cpu()
                right = reference.bias_dropout_add(x.cpu(), on_cpu, residual.cpu(), seed, 0.1, 1)
                case = f"{rows} x {columns} in {dtype}, {'no ' if bias is None else ''}bias"
                got = ops.bias_dropout_add(x, bias, residual, seed.to(device), 0.1, 1)
                for name, one, other in zip(("output", "mask"), got, right, strict=True):
                    yield f"{name} of {case}", one, other


def _large(bench: Bench) -> Compared:
    """Compares a mask too large for the CPU: the definition runs on the device, whose int64 products are the
    CPU's."""
    seed = torch.tensor([-3], device=bench.device)
    x = random(bench.device, torch.bfloat16, 2**16 if bench.tiny else 2**24)
    keep = reference.draw_mask(x.shape, seed, 0.1)
    y, packed = ops.packed_dropout(x, seed, 0.1, 1)
    yield "mask", packed, reference.pack_bits(keep)
    yield "output", y, reference.apply_mask(x, keep, 0.1)
    yield "gradient", ops.apply_packed_mask(x, packed, 0.1, 1), y
