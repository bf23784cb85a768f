"""Brings what tells a run from another, its settings, into one form for one meaning."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pmexp.config.canonical import as_one_number
from pmexp.config.kinds import architecture_of
from pmexp.config.model import ModelConfig, ModelKind

_ARCHITECTURE = "model.architecture."
RATES = ("model.hidden_dropout", "model.attention_dropout", "model.lora.dropout")  # which variant.p overrides


def without(settings: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The settings, dotted, without `keys` and what lies below them."""
    left_out = tuple(f"{key}." for key in keys)
    return {key: value for key, value in settings.items() if not f"{key}.".startswith(left_out)}


def one_form(settings: Mapping[str, Any], model: ModelConfig, rate: float | None) -> dict[str, Any]:
    """The settings with every dropout rate said once, wherever it was given.

    `rate`, which is variant.p, overrides the rates of model.*, of which two override the architecture's, and
    these a checkpoint's. Equal rates of all places become one, variant.p.
    """
    kind = architecture_of(model)
    hidden, replaced = _rate(model, model.hidden_dropout, rate, kind.hidden_dropout)
    attention, also_replaced = hidden, replaced
    if kind.attention_dropout or model.kind is ModelKind.auto:
        attention, also_replaced = _rate(model, model.attention_dropout, rate, kind.attention_dropout)
    known = [hidden, attention]
    if model.lora.rank is not None:
        known.append(model.lora.dropout if rate is None else rate)
    if len(set(known)) == 1:
        rate = hidden
    others = {
        key: as_one_number(value) if key.startswith(_ARCHITECTURE) else value
        for key, value in without(settings, [*RATES, *replaced, *also_replaced]).items()
    }
    return others | {"variant.p": rate} | (dict(zip(RATES, known, strict=False)) if rate is None else {})


def _rate(
    model: ModelConfig, own: float | None, of_all: float | None, names: Sequence[str]
) -> tuple[float | None, list[str]]:
    """The rate of one kind of place, None where only the checkpoint or transformers knows it, and the keys of
    the architecture that it stands for."""
    keys = [_ARCHITECTURE + name for name in names]
    if of_all is not None or own is not None:
        return (own if of_all is None else of_all), keys
    if model.kind is ModelKind.auto:  # which may have rates besides those that are stated
        return None, []
    first, *others = [model.architecture.get(name) for name in names]
    if not isinstance(first, int | float) or any(other != first for other in others):
        return None, []
    return float(first), keys
