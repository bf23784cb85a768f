"""Lists models of timm and diffusers, where these are installed."""

import importlib
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from pmexp.zoo.specimen import Made, Specimen
from pmexp.zoo.tiny import HEADS, LAYERS, RATE, WIDTH
from pmexp.zoo.torch_modules import numbers, seeded


def of_timm() -> Iterator[Specimen]:
    """Yields timm's own models for tests and the small ones below, with its attention fused and not."""
    if not find_spec("timm"):
        return
    import_torchvision()
    timm = importlib.import_module("timm")
    for name in [*timm.list_models("test_*"), *_TIMM]:
        for attention in ("fused", "unfused"):
            yield Specimen(name, "timm", attention, partial(seeded, partial(_of_timm, name, attention)))


def of_diffusers() -> Iterator[Specimen]:
    """Yields models of diffusers that have a rate of dropout."""
    if find_spec("diffusers"):
        for name, (options, inputs) in _DIFFUSERS.items():
            make = partial(_of_diffusers, name, options, inputs)
            yield Specimen(name, "diffusers", "", partial(seeded, make))


_SIZES = {"img_size": 64, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": HEADS}
_WINDOWS = {"img_size": 64, "window_size": 4, "embed_dim": WIDTH, "depths": (2, 2), "num_heads": (2, 2)}
_TIMM: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"), _SIZES),
    **dict.fromkeys(("beit_base_patch16_224", "eva02_tiny_patch14_224", "cait_xxs24_224"), _SIZES),
    **dict.fromkeys(("mixer_s32_224", "xcit_nano_12_p16_224"), _SIZES),
    **dict.fromkeys(("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"), _WINDOWS),
    **{name: {} for name in ("resnet18", "efficientnet_b0", "convnext_atto", "pvt_v2_b0", "mobilevit_xxs")},
}
_RATES = [
    f"{what}_rate" for what in ("drop", "pos_drop", "proj_drop", "attn_drop", "patch_drop", "drop_path")
]


def _of_timm(name: str, attention: str) -> Made:
    timm = importlib.import_module("timm")
    timm.layers.set_fused_attn(attention == "fused")
    options = _TIMM.get(name, {}) | dict.fromkeys(_RATES, RATE)
    while True:
        try:
            model = timm.create_model(name, num_classes=5, **options)
        except TypeError as error:  # it has no such option
            unknown = [option for option in options if f"'{option}'" in str(error)]
            if not unknown:
                raise
            del options[unknown[0]]
        else:
            size = options.get("img_size", model.default_cfg["input_size"][-1])
            return model, {"x": numbers(2, 3, size, size)}


def import_torchvision() -> None:
    """Imports torchvision, if it is there, without its operators: its wheels have them for CUDA alone.

    timm and diffusers need torchvision to be imported, and use no operator of it.
    """
    if not find_spec("torchvision"):
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float iou) -> Tensor")
        importlib.import_module("torchvision")


_PICTURE, _WORDS = numbers(2, 4, 8, 8), numbers(2, 5, WIDTH)
_TIME = {"timestep": torch.tensor([3, 5])}
_BLOCKS = {"in_channels": 4, "out_channels": 4, "block_out_channels": (WIDTH, WIDTH), "norm_num_groups": 8}
_ATTENTION = {"num_attention_heads": HEADS, "attention_head_dim": WIDTH // HEADS, "num_layers": LAYERS}
# The options that make a model of diffusers small, beside its rate of dropout, and what its forward is given.
_DIFFUSERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "UNet2DModel": (
        _BLOCKS
        | {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "attention_head_dim": 8}
        | {"up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
        _TIME | {"sample": _PICTURE},
    ),
    "UNet2DConditionModel": (
        _BLOCKS
        | {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": 8}
        | {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": WIDTH},
        _TIME | {"sample": _PICTURE, "encoder_hidden_states": _WORDS},
    ),
    "Transformer2DModel": (
        _ATTENTION | {"in_channels": 4, "norm_num_groups": 2, "cross_attention_dim": WIDTH},
        {"hidden_states": _PICTURE, "encoder_hidden_states": _WORDS},
    ),
    "DiTTransformer2DModel": (
        _ATTENTION | {"sample_size": 8},
        _TIME | {"hidden_states": _PICTURE, "class_labels": torch.tensor([1, 2])},
    ),
    "PriorTransformer": (
        _ATTENTION | {"embedding_dim": WIDTH, "num_embeddings": 5, "additional_embeddings": 4},
        _TIME
        | {"hidden_states": numbers(2, WIDTH), "proj_embedding": numbers(2, WIDTH)}
        | {"encoder_hidden_states": _WORDS},
    ),
    "TransformerTemporalModel": (
        _ATTENTION | {"in_channels": WIDTH, "norm_num_groups": 8},
        {"hidden_states": numbers(4, WIDTH, 4, 4), "num_frames": 2},
    ),
}


def _of_diffusers(name: str, options: dict[str, Any], inputs: dict[str, Any]) -> Made:
    cls = getattr(importlib.import_module("diffusers"), name)
    return cls(**options, dropout=RATE), dict(inputs)
