"""Puts xFormers' memory-efficient attention into models with transformers' attention interface, on CUDA.

It keeps no length x length matrix of probabilities, and drops inside of its kernel. Masks are handed over as
transformers makes them for eager attention, numbers that are added to the scores. It was never run on a GPU
here: xFormers has no kernel for the CPU, and the call is tested against a stand-in of the same contract.
"""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.masking_utils import eager_mask

from pmexp.errors import UserError, first_line
from pmexp.systems.base import SystemPart
from pmexp.systems.layers import with_attention_interface

_NAME = "xformers_memory_efficient"
_ALIGNED = 8  # rows of a mask begin at multiples of so many elements, which kernels of 16 bits ask for
_CHANGES_SCORES = ("position_bias", "softcap", "s_aux")  # arguments of some models that the kernel lacks

_attended: WeakSet[nn.Module] = WeakSet()  # attention modules that have called the kernel


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Returns the attention of query, key and value, each (batch, heads, length, width), as (batch, length,
    heads, width). Raises UserError for what the kernel does not take."""
    from xformers.ops import memory_efficient_attention

    if unknown := [name for name in _CHANGES_SCORES if others.get(name) is not None]:
        raise UserError(
            f"system.parts: xformers has no {unknown[0]}, which {type(module).__name__} needs; leave it out"
        )
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    bias = None if attention_mask is None else _bias(attention_mask, query, key)
    try:
        output = memory_efficient_attention(
            *(tensor.transpose(1, 2) for tensor in (query, key, value)),
            attn_bias=bias,
            p=dropout if module.training else 0.0,
            scale=scaling,
        )
    except NotImplementedError as error:  # it lists for each of its kernels why that does not take the call
        shape = f"{tuple(query.shape)} of {query.dtype} on {query.device.type}"
        raise UserError(
            f"system.parts: xformers has no kernel for {shape} ({first_line(error)}); leave it out"
        ) from None
    _attended.add(module)
    return output, None


def _bias(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Returns the mask as the kernel takes it: (batch, heads, queries, keys) in the dtype of `query`, with
    aligned rows. What is lower than that dtype reaches becomes its lowest number, since a row that is all
    minus infinity has no softmax."""
    whole = (*query.shape[:3], key.shape[2])
    fits = mask.dim() == 4 and all(own in (1, size) for own, size in zip(mask.shape, whole, strict=True))
    if not fits or not mask.is_floating_point():
        raise UserError(
            f"system.parts: xformers takes masks of numbers that broadcast to {whole}, the model gives "
            f"{tuple(mask.shape)} of {mask.dtype}; leave it out"
        )
    batch, heads, _, _ = mask.shape
    rows = mask.clamp(min=torch.finfo(query.dtype).min).to(query.dtype).expand(batch, heads, *whole[2:])
    length = -(-whole[3] // _ALIGNED) * _ALIGNED
    aligned = query.new_empty(batch, heads, whole[2], length)[..., : whole[3]].copy_(rows)
    return aligned.expand(whole)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, eager_mask)


class Xformers(SystemPart):
    """Puts the attention of xFormers in the place of a model's own."""

    def check(self, device: torch.device) -> None:
        if find_spec("xformers") is None:
            raise UserError(
                "system.parts: xformers is not installed; pip install xformers beside a torch for CUDA, or "
                "leave it out (system=flash needs no package)"
            )
        if device.type != "cuda":
            raise UserError(
                f"system.parts: xformers has kernels for CUDA alone and the run is on {device.type}; "
                "leave it out"
            )

    def before_variant(self, module: nn.Module, device: torch.device, half: bool) -> None:
        """Puts the attention in. Raises UserError for a model that knows eager attention only."""
        with_attention_interface(module, "xformers").set_attn_implementation(_NAME)

    def record(self, module: nn.Module) -> dict[str, str]:
        called = sum(part in _attended for part in module.modules())
        return {"attention": f"xformers {_version()}: memory_efficient_attention in {called} modules"}


def _version() -> str:
    try:
        return version("xformers")
    except PackageNotFoundError:  # it is imported from a folder that pip does not know
        return "of unknown version"
