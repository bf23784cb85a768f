"""The two pure operators of packed dropout and the packing pair, as torch.library ops.

They take the seed as a tensor, so they have no hidden state: checkpointing recomputes the same mask,
and two calls of a compiled graph with two seeds are never merged into one. torch dispatches by device.
"""

import torch
from torch import Tensor

from pmexp.packed_dropout import cpu, reference

_library = torch.library.Library("pmexp", "DEF")
_library.define(
    "packed_dropout(Tensor x, Tensor seed, float p, int bits) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_library.define(
    "apply_packed_mask(Tensor x, Tensor packed, float p, int bits) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_library.define("pack_bits(Tensor mask, int bits) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
_library.define(
    "unpack_bits(Tensor packed, SymInt[] shape, int bits) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,)
)


def backend(device: torch.device) -> str:
    """Name of the implementation that runs on `device`; it goes into every run's record."""
    if device.type == "cpu" and _cpu_core is not None:
        return _cpu_core.name
    return f"torch reference on {device.type}"


@torch.library.impl(_library, "packed_dropout", "CompositeExplicitAutograd")
def _packed_dropout(x: Tensor, seed: Tensor, p: float, bits: int) -> tuple[Tensor, Tensor]:
    keep = reference.draw_mask(x.shape, seed, p)
    return reference.apply_mask(x, keep, p), reference.pack_bits(keep, bits)


@torch.library.impl(_library, "apply_packed_mask", "CompositeExplicitAutograd")
def _apply_packed_mask(x: Tensor, packed: Tensor, p: float, bits: int) -> Tensor:
    return reference.apply_mask(x, reference.unpack_bits(packed, x.shape, bits), p)


torch.library.impl(_library, "pack_bits", "CompositeExplicitAutograd")(reference.pack_bits)
torch.library.impl(_library, "unpack_bits", "CompositeExplicitAutograd")(reference.unpack_bits)

_cpu_core = cpu.select()
if _cpu_core is not None:
    torch.library.impl(_library, "packed_dropout", "CPU")(_cpu_core.packed_dropout)
    torch.library.impl(_library, "apply_packed_mask", "CPU")(_cpu_core.apply_packed_mask)
    torch.library.impl(_library, "pack_bits", "CPU")(_cpu_core.pack_bits)
    torch.library.impl(_library, "unpack_bits", "CPU")(_cpu_core.unpack_bits)


@torch.library.register_fake("pmexp::packed_dropout")
def _packed_dropout_fake(x: Tensor, seed: Tensor, p: float, bits: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _pack_bits_fake(x, bits)


@torch.library.register_fake("pmexp::apply_packed_mask")
def _apply_packed_mask_fake(x: Tensor, packed: Tensor, p: float, bits: int) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("pmexp::pack_bits")
def _pack_bits_fake(mask: Tensor, bits: int) -> Tensor:
    return mask.new_empty((reference.packed_bytes(mask.numel(), bits),), dtype=torch.uint8)


@torch.library.register_fake("pmexp::unpack_bits")
def _unpack_bits_fake(packed: Tensor, shape: list[int], bits: int) -> Tensor:
    return packed.new_empty(shape, dtype=torch.bool)


packed_dropout = torch.ops.pmexp.packed_dropout.default
apply_packed_mask = torch.ops.pmexp.apply_packed_mask.default
pack_bits = torch.ops.pmexp.pack_bits.default
unpack_bits = torch.ops.pmexp.unpack_bits.default
