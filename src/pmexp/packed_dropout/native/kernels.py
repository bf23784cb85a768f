"""Hands kernels that Triton has compiled and loaded to calls.cpp, where they are those that it launches."""

import re
from typing import Any

import torch

# What a launch in calls.cpp passes, in order, with bytes each. Triton compiles away what is None or constant,
# and appends two addresses of scratch memory, which these kernels need none of.
_PASSED = {
    "_dropout_kernel": {
        "x": 8,
        "y": 8,
        "packed": 8,
        "key": 8,
        "columns": 4,
        "numel": 4,
        "threshold": 8,
        "scale_bits": 8,
    },
    "_scale_kernel": {"x": 8, "packed": 8, "y": 8, "numel": 4, "scale_bits": 8},
}
_SCRATCH = [8, 8]
_ELEMENTS_OF_A_BLOCK = 32
_MOST_SHARED = 48 * 1024  # bytes that a launch may ask for without setting an attribute first


def offer(kernel: Any, arguments: tuple[Any, ...], compiled: Any) -> None:
    """Has calls.cpp launch `compiled`, which these arguments have just launched, for arguments of its kind.

    Nothing happens without the library, and where the kernel is another one, or takes anything else than
    what calls.cpp passes: then Python launches it.
    """
    if not hasattr(torch.ops.pmexp, "register_kernel") or not can_be_passed(kernel, compiled):
        return
    named = dict(zip(kernel.arg_names, arguments, strict=True))
    draws = "BLOCKS" in named
    elements = named["BLOCKS"] * _ELEMENTS_OF_A_BLOCK if draws else named["ROWS"] * 8 // named["BITS"]
    metadata = compiled.metadata
    torch.ops.pmexp.register_kernel(
        *(named["x"], named["packed"], named["y"], draws, named["BITS"]),
        *(compiled.function, metadata.shared, 32 * metadata.num_warps, elements),
    )


def can_be_passed(kernel: Any, compiled: Any) -> bool:
    """Whether a compiled kernel takes exactly what calls.cpp passes, by its source and by its PTX."""
    passed = _PASSED.get(kernel.__name__)
    if passed is None:
        return False
    taken = [name for name, kind in compiled.src.signature.items() if kind != "constexpr"]
    metadata = compiled.metadata
    return (
        taken == list(passed)
        and parameter_sizes(compiled.asm["ptx"]) == [*passed.values(), *_SCRATCH]
        and metadata.num_ctas == 1
        and metadata.shared <= _MOST_SHARED
        and not metadata.launch_cooperative_grid
        and not metadata.launch_pdl
        and not metadata.global_scratch_size
        and not metadata.profile_scratch_size
    )


def parameter_sizes(ptx: str) -> list[int]:
    """Bytes of each parameter of the entry in a PTX listing."""
    entry = re.search(r"\.entry\s+\w+\(([^)]*)\)", ptx)
    return [int(bits) // 8 for bits in re.findall(r"\.param\s+\.[a-z](\d+)", entry.group(1))] if entry else []
