"""The memory that a training step may take: bytes, GiB, or what a named device leaves to it."""

import re

from pmexp.errors import UserError
from pmexp.shown import counted

_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_GIB = 2**30
_LEAST = 2**20
# CUDA's context with the kernels that a training loads (0.3 GiB and more: pytorch/pytorch issue 107667), and
# what cuBLAS, cuDNN and NCCL allocate past torch.
CONTEXT_BYTES = _GIB // 2
# GiB that torch reports of a whole device, rounded down: an "80 GB" card has 80 * 2**30 bytes less what ECC
# and the driver take, which is neither 80 * 10**9 (74.5 GiB) nor 80 GiB. The sources are out-of-memory
# messages of torch in issues on GitHub that name the card.
_GIB_OF = {
    "A100-40GB": 39.3,  # 39.50: TianheWu/CoSeR 10; 39.39 was noted without where it was seen
    "A100-80GB": 79.1,  # 79.14: lianqi1008/Control-GIC 6; 79.25: wbfwonderful/Vad-R1 11
    "H100-80GB": 79.1,  # no source: 79.10 to 79.19 were noted without where they were seen
    "H200": 139.8,  # measured: docs/results/gpu.md
    "V100-32GB": 31.7,  # 31.74: liucongg/ChatGLM-Finetuning 73; 31.75: uni-medical/SAM-Med3D 8
    "RTX-4090": 23.6,  # 23.61: pinokiofactory/flux-webui 11; 23.64: ali-vilab/VGen 104
}
DEVICES = tuple(_GIB_OF)


def budget_bytes(text: str) -> int:
    """Returns the bytes that `text` names. Bytes and GiB count as they are; of a device's memory the share of
    the CUDA context is taken off. Raises UserError."""
    if text in _GIB_OF:
        return round(_GIB_OF[text] * _GIB) - CONTEXT_BYTES
    amount = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?) ?(GiB)?", text)
    try:
        size = round(float(amount[1]) * (_GIB if amount[2] else 1)) if amount else 0
    except (ValueError, OverflowError):
        size = 0
    if size < _LEAST:  # 80 surely means GiB
        is_what = f"is {counted(size, 'byte')}" if size > 0 else "is no amount of memory"
        raise UserError(
            f"budget: {text!r} {is_what}; allowed are bytes such as 80e9 (1 MiB at least), GiB such as "
            f"78.6GiB, and a device: {', '.join(DEVICES)}"
        )
    return size


def in_unit(size: int, largest: int, digits: int = 4) -> str:
    """Returns so many bytes as text in the unit that suits the largest of several: GiB, MiB or KiB."""
    unit, name = next((each for each in _UNITS if largest >= each[0] / 10), _UNITS[-1])
    return f"{size / unit:.{digits}g} {name}"


def in_gib(size: int) -> str:
    """Returns so many bytes as text in GiB."""
    return f"{size / _GIB:.4g} GiB"
