"""Puts a variant into a model: its dropout by one call of replace_dropout, then its method."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pmexp.errors import UserError
from pmexp.own_code import called, check_takes, imported, of_own_code
from pmexp.packed_dropout import ReplacementReport, replace_dropout
from pmexp.shown import class_of, first_five
from pmexp.variants.method import Method
from pmexp.variants.table import DROPOUTS, Entry

_DROPOUT, _APPLY, _OPTIONS = "variant.dropout", "variant.apply", "variant.options"


class Variant(Protocol):
    """Declares what is read here of a `config.VariantConfig`, which is a room above this one."""

    @property
    def name(self) -> str: ...
    @property
    def dropout(self) -> str: ...
    @property
    def entry(self) -> Entry: ...
    @property
    def apply(self) -> str | None: ...
    @property
    def p(self) -> float | None: ...
    @property
    def replacing(self) -> dict[str, Any]: ...
    @property
    def options(self) -> dict[str, Any]: ...


def apply_variant(
    model: nn.Module, variant: Variant, example: Mapping[str, Tensor] | None = None
) -> ReplacementReport:
    """Replaces the dropout of `model` by that of `variant`, and returns what was replaced and what was not.

    Args:
        example: keyword arguments of a forward, with which the report is settled at once if the model allows.

    Raises:
        UserError: there is no dropout to replace, or a dropout of one's own cannot be had.
    """
    dropout, finish = dropout_of(variant)
    if dropout is nn.Dropout and variant.p == 0.0:  # adapters have no module of dropout at all then
        return ReplacementReport(
            dropout.__name__, "all", left={"": "left as it is by variant.p=0"}, settled=True
        )
    name = f"variant={variant.name}"
    try:
        report = replace_dropout(model, dropout, example=example, **variant.replacing)
    except ValueError as error:
        if variant.apply:
            return ReplacementReport(dropout.__name__, "all", left={"": str(error)}, settled=True)
        raise UserError(f"{name}: {error}") from None
    if not variant.apply and (nothing := report.nothing_found(type(model).__name__)):
        raise UserError(f"{name}: {nothing}")
    if finish:
        finish(model, report)
    return report


def apply_method(model: nn.Module, variant: Variant) -> Method | None:
    """Calls the function of `variant.apply`, if there is one, with the model and `variant.options`.

    Returns what it wants of the training, None where there is no function. Raises UserError where it cannot
    be had, fails or returns something else.
    """
    if variant.apply is None:
        return None
    returned = called(_APPLY, variant.apply, (model,), variant.options, _OPTIONS)
    if not isinstance(returned, Method | Mapping | None):
        raise UserError(
            f"{_APPLY}: {variant.apply}: returns {class_of(returned)}; change the model in place, and "
            "return a mapping of plain values, a pmexp.variants.method.Method, or nothing"
        )
    if lost := [name for name, tensor in model.state_dict().items() if getattr(tensor, "is_meta", False)]:
        raise UserError(
            f"{_APPLY}: {variant.apply}: leaves {first_five(lost)} on the device meta, without values; give "
            "them some"
        )
    method = returned if isinstance(returned, Method) else Method(report=returned or {})
    try:
        json.dumps(dict(method.report), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{_APPLY}: {variant.apply}: returns no report ({error}); return a mapping of plain values, a "
            "pmexp.variants.method.Method, or nothing"
        ) from None
    if (method.state is None) != (method.restore is None):
        raise UserError(
            f"{_APPLY}: {variant.apply}: state and restore of a Method belong together; give both"
        )
    return method


def check_own_code(variant: Variant) -> None:
    """Raises UserError where a variant's code of one's own cannot be had, or does not take its options."""
    dropout_of(variant)
    if variant.apply:
        check_takes(
            _APPLY, variant.apply, imported(_APPLY, variant.apply), (None,), variant.options, _OPTIONS
        )


def dropout_of(variant: Variant) -> tuple[type[nn.Dropout], Any]:
    """Imports the class of a variant's dropout, and what is to be called after the replacement, or None.

    Raises UserError for a class of one's own that cannot be had, or is not made as nn.Dropout is.
    """
    if variant.dropout in DROPOUTS:
        return variant.entry.load()
    cls = imported(_DROPOUT, variant.dropout)
    if not (isinstance(cls, type) and issubclass(cls, nn.Dropout)):
        said = class_of(cls) if not isinstance(cls, type) else "no subclass of torch.nn.Dropout"
        raise UserError(
            f"{_DROPOUT}: {variant.dropout}: is {said}; name a class made from torch.nn.Dropout, and give "
            "its arguments by variant.options"
        )
    check_takes(_DROPOUT, variant.dropout, cls, (0.5, False), variant.options, _OPTIONS)
    with of_own_code(_DROPOUT, variant.dropout):
        _check_made(variant.dropout, cls(0.5, False, **variant.options))
    return cls, None


def _check_made(path: str, dropout: nn.Dropout) -> None:
    """Raises UserError for a dropout whose `drop` does not take what F.dropout takes."""
    if drop := getattr(dropout, "drop", None):
        check_takes(_DROPOUT, f"{path}.drop", drop, (None, 0.5, True, False), {}, _OPTIONS)


def changes_evaluation(variant: Variant) -> str:
    """Says in words that a dropout of one's own changes its input in evaluation too; empty where it does not.

    Leaves torch's random numbers as they are.
    """
    if variant.dropout in DROPOUTS:
        return ""
    dropout, ones = dropout_of(variant)[0](0.5, False, **variant.options).eval(), torch.ones(4, 4)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), of_own_code(_DROPOUT, variant.dropout):
        kept = dropout(ones)
    if isinstance(kept, Tensor) and torch.equal(kept, ones):
        return ""
    return (
        f"{variant.dropout} changes its input in evaluation too, so that scores are not those of the weights"
    )
