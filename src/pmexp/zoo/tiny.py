"""Makes tiny configurations of any model of transformers, all of whose rates of dropout are above 0.

A configuration is made by its own class from the defaults of its fields, made small by what each is called;
what the class works out from others then fits them. Configurations inside of it are made likewise.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from transformers import PretrainedConfig

RATE = 0.1
WIDTH, HEADS, LAYERS, VOCABULARY, POSITIONS, PIXELS, PATCH = 32, 2, 2, 128, 64, 64, 8

# The largest value of a field of such a name; the first that fits counts.
_LARGEST: tuple[tuple[str, int], ...] = (
    (r"(.*_)?vocab_size(_.*)?|num_embeddings|codebook_size|n_vocab", VOCABULARY),
    (r"(pretrain_|crop_)?image_size|input_size|img_size|spec_size", PIXELS),
    (r"(spatial_)?patch_size|encoder_stride", PATCH),
    (r"(.*_)?position_embeddings|n_positions|n_ctx|max_(source|target)_positions|.*max_length", POSITIONS),
    (r"(.*_)?(layers|layer|blocks|depth|depths)|num_hidden_groups|num_stages", LAYERS),
    (r"(.*_)?(heads|head)|multi_query_group_num", HEADS),
    (r"rotary_dim|qk_rope_head_dim", WIDTH // HEADS // 2),
    (r"(.*_)?head_dim|d_kv|attention_key_size|head_size|key_length|kv_channels", WIDTH // HEADS),
    (r"num_mel_bins|input_feat_per_channel|.*attention_window|block_size", 8),
    (r"(.*_)?experts", 4),
    (r"(.*_)?experts_per_(tok|token)|(.*_)?top_?k(_.*)?|moe_k", 2),
    (r"num_conv_pos_embeddings|num_conv_pos_embedding_groups", 4),
    (r"mask_(time|feature)_length", 2),
    (r"window_size", 2),
    (r"sliding_window|.*_chunk_length|attention_chunk_size", 8),
    (
        r"(.*_)?(hidden_size|d_model|dim|n_embd|channels|intermediate_size|d_ff|d_inner|n_inner|width|proj_size|"
        r"hidden_sizes|dims|lora_rank|feature_size|embedding_size|filters)(_.*)?",
        WIDTH,
    ),
)
_AS_IT_IS = re.compile(
    r"num_channels|in_channels|.*input_channels|.*token_(id|index).*|chunk_size_feed_forward|.*kernel.*|"
    r".*stride.*|.*sampling.*|.*_groups?|n_group|topk_group"
)
TEXT_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}


def tiny(kind: type[PretrainedConfig], attention: str = "eager") -> PretrainedConfig:
    """Returns a tiny configuration of the class `kind`, all of whose rates of dropout are RATE.

    The rates at which whole layers are left out are 0, since each has to run. Raises what the class raises
    where its sizes do not fit.
    """
    config = _tiny(kind())
    config._attn_implementation = attention
    return config


def _tiny(default: PretrainedConfig) -> PretrainedConfig:
    chosen = dict(_small_fields(default))
    names = sorted(
        name for name, value in vars(default).items() if _is_token(name) and isinstance(value, int)
    )
    ids = {name: VOCABULARY - 1 - place for place, name in enumerate(names)}
    return type(default)(**chosen | ids | {name: TEXT_IDS[name] for name in names if name in TEXT_IDS})


def _small_fields(default: PretrainedConfig) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(default):
        value = getattr(default, field.name, None)
        if isinstance(value, PretrainedConfig):
            yield field.name, _tiny(value)
        elif field.init and (field.default is not None or "drop" in field.name):
            small = _small(field.name, value)  # a field whose default is None is worked out from others
            if small != value or isinstance(value, list | tuple):
                yield field.name, small


def _is_token(name: str) -> bool:
    return name.endswith(("token_id", "token_index"))


def _small(name: str, value: Any) -> Any:
    if "drop" in name and isinstance(value, float):
        return 0.0 if "layerdrop" in name else RATE
    if name == "initializer_range":
        return 0.2  # with the usual one, numbers of so narrow a model all but vanish
    if isinstance(value, list | tuple):
        return type(value)(_small(name.removesuffix("s"), item) for item in value)
    if type(value) is not int or _AS_IT_IS.fullmatch(name):
        return value
    largest = next((size for pattern, size in _LARGEST if re.fullmatch(pattern, name)), value)
    return min(value, largest)
