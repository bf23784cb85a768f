"""`variant.*`: what stands in the place of dropout."""

from dataclasses import dataclass, fields
from enum import Enum

from omegaconf import MISSING

from pmexp.config.checks import check_between, check_name
from pmexp.errors import UserError

OF_PACKED = ("bits", "rng", "cache_unpacked", "flip_rate", "recompute")  # options of packed masks alone


class Dropout(Enum):
    stock = "stock"
    byte_mask = "byte_mask"
    hooks = "hooks"
    packed = "packed"
    forward_unpack = "forward_unpack"
    seeded = "seeded"


class Where(Enum):
    all = "all"
    attention = "attention"
    hidden = "hidden"


class Rng(Enum):
    philox = "philox"
    torch = "torch"


@dataclass(kw_only=True)
class VariantConfig:
    name: str = MISSING  # how the report calls it
    dropout: Dropout = MISSING
    where: Where = Where.all
    p: float | None = None  # dropout rate of every place; null keeps the model's own rates
    bits: int = 1  # width of a stored mask value
    rng: Rng = Rng.philox
    cache_unpacked: bool = True  # a kept graph unpacks each mask once, not at every backward
    flip_rate: float = 0.0  # share of the stored bits flipped before backward
    recompute: bool = False  # attention's dropped probabilities are made again in backward, not saved

    def __post_init__(self) -> None:
        """Options that only packed masks have are put back to their defaults for other dropouts, and so is
        the place of a dropout that stays as it is: a sweep over them runs the baseline once."""
        check_name("variant.name", self.name)
        if self.p is not None:
            check_between("variant.p", self.p, 0.0, 1.0)
        if self.bits not in (1, 2, 4):
            raise UserError(f"variant.bits: {self.bits} is not a width; allowed are 1, 2 and 4")
        check_between("variant.flip_rate", self.flip_rate, 0.0, 1.0)
        if self.dropout is not Dropout.packed:
            for field in fields(self):
                if field.name in OF_PACKED:
                    setattr(self, field.name, field.default)
        if self.dropout is Dropout.stock:
            self.where = Where.all
