"""Holds PackedMask Dropout: unchanged training with dropout masks of one bit an element.

Usable alone; needs torch and nothing else.
"""

from pmexp.lasting_imports import without_collections

# The 7,000 objects that are made here and last would bring on a search for garbage through all that torch has
# made, which takes longer than these imports. Python does it later, when a program's own objects ask for it.
with without_collections():
    from pmexp.packed_dropout import batching, gradients, keyed_routes  # noqa: F401  they register rules of torch
    from pmexp.packed_dropout.bias_dropout_add import packed_bias_dropout_add
    from pmexp.packed_dropout.cuda_rng import torch_rng_record
    from pmexp.packed_dropout.functional import packed_dropout
    from pmexp.packed_dropout.module import PackedDropout, set_mode
    from pmexp.packed_dropout.ops import backend
    from pmexp.packed_dropout.recompute import dropped_matmul, softmax_dropout_matmul
    from pmexp.packed_dropout.reference import pack_bits, unpack_bits
    from pmexp.packed_dropout.report import Place, ReplacementReport
    from pmexp.packed_dropout.saved_masks import pack_saved_masks
    from pmexp.packed_dropout.surgery import recompute_attention, replace_dropout

__all__ = [
    "PackedDropout",
    "Place",
    "ReplacementReport",
    "backend",
    "dropped_matmul",
    "pack_bits",
    "pack_saved_masks",
    "packed_bias_dropout_add",
    "packed_dropout",
    "recompute_attention",
    "replace_dropout",
    "set_mode",
    "softmax_dropout_matmul",
    "torch_rng_record",
    "unpack_bits",
]
