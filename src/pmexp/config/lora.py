"""Declares the keys of `model.lora.*`: low-rank adapters beside frozen weights."""

from dataclasses import dataclass, fields
from enum import Enum

from pmexp.config.checks import check_at_least, check_between, check_positive
from pmexp.errors import UserError


class FrozenWeights(Enum):
    """Names what the weights that do not train are kept in."""

    fp32 = "fp32"
    bf16 = "bf16"


@dataclass(kw_only=True)
class LoraConfig:
    """Holds the keys of `model.lora`: low-rank adapters in place of training all weights."""

    rank: int | None = None  # width of each adapter; null: no adapters, all weights train
    alpha: float = 16.0  # an adapter's output counts alpha / rank times
    targets: list[str] | None = None  # ends of linear layers' names; null: all layers of the body
    dropout: float = 0.1  # rate of the dropout in front of each adapter
    frozen_weights: FrozenWeights = FrozenWeights.fp32  # bf16 takes half, and needs system.parts=[bf16]

    def __post_init__(self) -> None:
        """Checks the values, and sorts the targets: their order and repetition mean nothing."""
        if self.rank is not None:
            check_at_least("model.lora.rank", self.rank, 1)
        check_positive("model.lora.alpha", self.alpha)
        check_between("model.lora.dropout", self.dropout, 0.0, 1.0)
        if self.targets is not None:
            self.targets = sorted(set(self.targets))
            if not self.targets or not all(self.targets):
                raise UserError(
                    "model.lora.targets: names no layer; give ends of names such as [query,value], or null "
                    "for every linear layer"
                )

    @property
    def without_effect(self) -> set[str]:
        """Keys that change nothing under the others' values."""
        return {field.name for field in fields(self)} if self.rank is None else set()
