"""Builds models at their real sizes, without weights and memory, for the tables of fit-rivals-own.yaml.

Each function returns the model on the meta device, a batch of it, and its loss, or None where the model has
one. Dropout rates are those of the other tables, 0.1, wherever the model has a rate.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pmexp.zoo.pictures import import_torchvision

Asked = tuple[nn.Module, Any, Callable[..., Tensor] | None]
_RATE = 0.1
_FRAMES, _TOKENS = 3000, 448  # Whisper's window of 30 s, and its longest transcript
_CLASSES = 1000


def whisper_small(samples: int = 16) -> Asked:
    """Whisper-Small with 3,000 frames of 80 mel bins and 448 tokens a sample, in eager attention."""
    import_torchvision()  # transformers imports it where it is there
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        d_model=768,
        **{f"{side}_layers": 12 for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": 12 for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": 3072 for side in ("encoder", "decoder")},
        **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), _RATE),
        use_cache=False,
        attn_implementation="eager",
    )
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
        batch = {
            "input_features": torch.empty(samples, 80, _FRAMES),
            "decoder_input_ids": torch.empty(samples, _TOKENS, dtype=torch.int64),
            "labels": torch.empty(samples, _TOKENS, dtype=torch.int64),
        }
    return model, batch, None


def timm_vit_base(samples: int = 64) -> Asked:
    """timm's ViT-B/16 at 224 x 224 pixels, with attention in steps."""
    import_torchvision()
    timm = import_module("timm")  # it is not in every environment
    import_module("timm.layers").set_fused_attn(False)
    with torch.device("meta"):
        model = timm.create_model(
            "vit_base_patch16_224", drop_rate=_RATE, proj_drop_rate=_RATE, attn_drop_rate=_RATE
        )
        images = torch.empty(samples, 3, 224, 224)
        classes = torch.empty(samples, dtype=torch.int64)
    return model, (images, classes), cross_entropy
