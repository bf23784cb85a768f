"""Declares the keys of `variant.*`: what stands in the place of dropout, and how."""

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from omegaconf import MISSING

from pmexp.config.checks import check_at_least, check_between, check_name
from pmexp.errors import UserError
from pmexp.variants.table import Dropout

# These say which dropout it is and at which rate the model drops; the others are options of the dropout.
_NO_OPTIONS = ("name", "dropout", "p", "mask_stream")


class Where(Enum):
    """Names the places whose dropout is replaced."""

    all = "all"
    attention = "attention"
    hidden = "hidden"


class Rng(Enum):
    """Names the generators that packed masks are drawn by."""

    philox = "philox"
    torch = "torch"


@dataclass(kw_only=True)
class VariantConfig:
    """Chooses a dropout of `variants/table.py`, and the options that it takes."""

    name: str = MISSING  # how the report calls it
    dropout: Dropout = MISSING
    where: Where = Where.all
    p: float | None = None  # dropout rate of every place; null keeps the model's own rates
    mask_stream: int | None = None  # 1, 2, ...: other masks of the same seed; null: its own
    bits: int = 1  # width of a stored mask value
    rng: Rng = Rng.philox
    cache_unpacked: bool = True  # a kept graph unpacks each mask once, not at every backward
    flip_rate: float = 0.0  # share of the stored bits flipped before backward
    recompute: bool = False  # products do not save dropped operands: backward makes them again

    def __post_init__(self) -> None:
        """Checks the values, and puts options that the dropout does not take back to their defaults.

        So a sweep over options of one dropout runs the others once, and the record holds what ran. Where no
        run of a command takes an option that was typed, the command refuses it (`RunConfig.unused`).
        """
        check_name("variant.name", self.name)
        if self.p is not None:
            check_between("variant.p", self.p, 0.0, 1.0)
        if self.mask_stream is not None:
            check_at_least("variant.mask_stream", self.mask_stream, 1)
        if self.bits not in (1, 2, 4):
            raise UserError(f"variant.bits: {self.bits} is not a width; allowed are 1, 2 and 4")
        check_between("variant.flip_rate", self.flip_rate, 0.0, 1.0)
        for field in fields(self):
            if not self.takes(field.name):
                setattr(self, field.name, field.default)

    def takes(self, key: str) -> bool:
        """Whether this variant goes by the key `variant.<key>`."""
        return key in _NO_OPTIONS or key in self.dropout.takes

    @property
    def options(self) -> dict[str, Any]:
        """The options that the dropout takes, as plain values: keyword arguments of replace_dropout."""
        values = {key: getattr(self, key) for key in self.dropout.takes}
        return {key: value.value if isinstance(value, Enum) else value for key, value in values.items()}
