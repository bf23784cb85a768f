"""What stands in the place of dropout. Each variant is one call of replace_dropout, hooks beside it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pmexp.config import Dropout, VariantConfig
from pmexp.config.complete import complete
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

_DROPOUTS: dict[Dropout, type[nn.Dropout]] = {
    Dropout.stock: nn.Dropout,
    Dropout.byte_mask: ByteMaskDropout,
    Dropout.hooks: ByteMaskDropout,
    Dropout.forward_unpack: ForwardUnpackDropout,
    Dropout.seeded: SeededDropout,
    Dropout.packed: PackedDropout,
}
DROPOUTS = complete(_DROPOUTS, Dropout)


def apply(
    model: nn.Module,
    config: VariantConfig,
    example: Mapping[str, Tensor] | None = None,
    foreign: type[nn.Dropout] | None = None,
) -> ReplacementReport:
    """Puts the variant into `model`.

    Args:
        example: keyword arguments of a forward, with which the report is settled at once if the model allows
            it.
        foreign: somebody's class, put in the place of the variant's.

    Raises UserError when there is no dropout to replace.
    """
    dropout, options = (foreign, {}) if foreign else _dropout_of(config)
    name = foreign.__name__ if foreign else f"variant={config.name}"
    try:
        report = replace_dropout(model, dropout, where=config.where.value, example=example, **options)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    if said := report.nothing_found(type(model).__name__):
        raise UserError(f"{name}: {said}")
    if config.dropout is Dropout.hooks and foreign is None:
        report.by += " under pack_saved_masks"
        run_under_packing(model)
    return report


def _dropout_of(config: VariantConfig) -> tuple[type[nn.Dropout], dict[str, Any]]:
    """The class that a variant puts in the place of dropout, and its options."""
    options = {
        "bits": config.bits,
        "cache_unpacked": config.cache_unpacked,
        "rng": config.rng.value,
        "flip_rate": config.flip_rate,
        "recompute": config.recompute,
    }
    dropout = DROPOUTS[config.dropout]
    return dropout, options if dropout is PackedDropout else {}
