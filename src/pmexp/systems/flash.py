"""Puts in attention that keeps no length x length matrix, where model, device and dtype allow it.

Models with transformers' attention interface get the FlashAttention-2 package where it is installed and the
run is on CUDA in half precision, else scaled_dot_product_attention (see sdpa_kernels.py, which notes the
kernel that ran). Longformer has neither and gets sliding_attention.py. The FlashAttention-2 branch was never
run here, for want of a GPU.
"""

from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import is_flash_attn_2_available

from pmexp.systems.base import SystemPart
from pmexp.systems.layers import with_attention_interface
from pmexp.systems.sdpa_kernels import flash_first, kernels_that_ran
from pmexp.systems.sliding_attention import SlidingAttention

_PACKAGE = "flash_attention_2"
_SDPA = "sdpa_fused"  # transformers takes a name with "flash" in it for the package


def _sdpa_fused(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    with flash_first(module):
        output: tuple[Tensor, None] = sdpa_attention_forward(module, *args, **kwargs)
        return output


AttentionInterface.register(_SDPA, _sdpa_fused)
AttentionMaskInterface.register(_SDPA, sdpa_mask)


class Flash(SystemPart):
    """Puts in attention that keeps no matrix of length x length."""

    def before_variant(self, module: nn.Module, device: torch.device, half: bool) -> None:
        """Puts the attention in. Raises UserError for a model that has none that fits."""
        owners = [part for part in module.modules() if _is_longformer(part)]
        for owner in owners:
            owner.self = SlidingAttention(owner.self)
        if owners:
            return
        model = with_attention_interface(module, "flash")
        package = (
            device.type == "cuda" and half and model._supports_flash_attn and is_flash_attn_2_available()
        )
        model.set_attn_implementation(_PACKAGE if package else _SDPA)

    def record(self, module: nn.Module) -> dict[str, str]:
        if _PACKAGE in {_implementation(part) for part in module.modules()}:
            return {"attention": f"flash: FlashAttention-2 {version('flash_attn')}"}
        sliding = any(isinstance(part, SlidingAttention) for part in module.modules())
        return {"attention": f"flash: {'sliding blocks, ' if sliding else ''}{kernels_that_ran(module)}"}


def _is_longformer(owner: nn.Module) -> bool:
    # Its import is slow, and most runs have neither flash nor a Longformer.
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    return isinstance(getattr(owner, "self", None), LongformerSelfAttention)


def _implementation(module: nn.Module) -> object:
    return getattr(getattr(module, "config", None), "_attn_implementation", None)
