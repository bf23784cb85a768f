"""PackedMask Dropout: unchanged training with dropout masks of one bit an element.

Usable alone; needs torch and nothing else.
"""

from pmexp.packed_dropout.functional import packed_dropout
from pmexp.packed_dropout.module import PackedDropout, set_mode
from pmexp.packed_dropout.ops import backend
from pmexp.packed_dropout.reference import pack_bits, unpack_bits
from pmexp.packed_dropout.surgery import Place, ReplacementReport, replace_dropout

__all__ = [
    "PackedDropout",
    "Place",
    "ReplacementReport",
    "backend",
    "pack_bits",
    "packed_dropout",
    "replace_dropout",
    "set_mode",
    "unpack_bits",
]
