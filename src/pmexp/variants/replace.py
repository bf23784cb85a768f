"""Puts a variant into a model: one call of replace_dropout with what the table says of its dropout."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.packed_dropout import ReplacementReport, replace_dropout
from pmexp.variants.table import Dropout


class Variant(Protocol):
    """Declares what is read here of a `config.VariantConfig`, which is a room above this one."""

    @property
    def name(self) -> str: ...
    @property
    def dropout(self) -> Dropout: ...
    @property
    def p(self) -> float | None: ...
    @property
    def options(self) -> dict[str, Any]: ...


def apply_variant(
    model: nn.Module,
    variant: Variant,
    example: Mapping[str, Tensor] | None = None,
    foreign: type[nn.Dropout] | None = None,
) -> ReplacementReport:
    """Replaces the dropout of `model` by that of `variant`, and returns what was replaced and what was not.

    Args:
        example: keyword arguments of a forward, with which the report is settled at once if the model allows.
        foreign: a user's class, put in the place of the variant's.

    Raises:
        UserError: there is no dropout to replace.
    """
    dropout, finish = (foreign, None) if foreign else variant.dropout.load()
    options = {} if foreign else variant.options
    if dropout is nn.Dropout and variant.p == 0.0:  # adapters have no module of dropout at all then
        return ReplacementReport(dropout.__name__, "all", left={"": "every rate is 0"}, settled=True)
    name = foreign.__name__ if foreign else f"variant={variant.name}"
    try:
        report = replace_dropout(model, dropout, example=example, **options)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    if nothing := report.nothing_found(type(model).__name__):
        raise UserError(f"{name}: {nothing}")
    if finish:
        finish(model, report)
    return report
