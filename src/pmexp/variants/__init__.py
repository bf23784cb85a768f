"""What stands in the place of dropout. Each variant is one call of replace_dropout, hooks beside it."""

from torch import nn

from pmexp.config import Dropout, VariantConfig
from pmexp.errors import UserError
from pmexp.packed_dropout import (
    ForwardUnpackDropout,
    PackedDropout,
    ReplacementReport,
    SeededDropout,
    replace_dropout,
)
from pmexp.variants.byte_mask import ByteMaskDropout
from pmexp.variants.hooks import run_under_packing


def apply(model: nn.Module, config: VariantConfig) -> ReplacementReport:
    """Puts the variant into `model`. Raises UserError when there is no dropout to replace."""
    try:
        match config.dropout:
            case Dropout.stock:
                return replace_dropout(model, nn.Dropout, where=config.where.value)
            case Dropout.byte_mask:
                return replace_dropout(model, ByteMaskDropout, where=config.where.value)
            case Dropout.hooks:
                report = replace_dropout(model, ByteMaskDropout, where=config.where.value)
                report.by += " under pack_saved_masks"
                run_under_packing(model)
                return report
            case Dropout.packed:
                return replace_dropout(
                    model,
                    PackedDropout,
                    where=config.where.value,
                    bits=config.bits,
                    cache_unpacked=config.cache_unpacked,
                    rng=config.rng.value,
                    flip_rate=config.flip_rate,
                    recompute=config.recompute,
                )
            case Dropout.forward_unpack:
                return replace_dropout(model, ForwardUnpackDropout, where=config.where.value)
            case Dropout.seeded:
                return replace_dropout(model, SeededDropout, where=config.where.value)
    except ValueError as error:
        raise UserError(f"variant={config.name}: {error}") from None
