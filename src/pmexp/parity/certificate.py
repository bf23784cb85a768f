"""Makes the certificate: the result of a comparison as plain types for JSON."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pmexp.masking import masked_values
from pmexp.measure.environment import environment
from pmexp.parity.lockstep import Compared, Place
from pmexp.parity.rounding import RULE
from pmexp.parity.side import Side
from pmexp.shown import counted

SCHEMA = 1  # one more where a key changes its meaning or goes away

Certificate = dict[str, Any]


def certificate(a: Side, b: Side, compared: Compared, command: str) -> Certificate:
    """Returns the certificate of a comparison that `command` made; credentials in it are masked."""
    device = a.training.system.device
    record = {
        "schema": SCHEMA,
        "verdict": "equal" if compared.equal else "different",
        "sentence": sentence(compared),
        "steps": compared.steps,
        "tensors": compared.tensors,
        "elements": compared.elements,
        "first_difference": _place(compared.first),
        "first_of_kind": {kind: _place(place) for kind, place in compared.of_kind.items()},
        "tensors_differing": compared.differing,
        "only_in": compared.only_in,
        "rounding_rule": RULE,
        "a": _side(a),
        "b": _side(b),
        "weights_before": compared.weights_before,
        "inputs": a.prepared.inputs,
        "command": command,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(device),
    }
    return _finite(masked_values(record))  # type: ignore[no-any-return]


def sentence(compared: Compared) -> str:
    """Returns the verdict in clauses between semicolons, without a full stop."""
    if compared.first is None:
        verdict = f"equal, bit for bit, over {counted(compared.steps, 'step')}, "
        verdict += counted(compared.tensors, "tensor")
        alone = [
            f"{len(names)} a step are in {side} alone" for side, names in compared.only_in.items() if names
        ]
        return "; ".join([verdict, *alone])
    first = compared.first
    where = f"in step {first.step}" if first.step else "before the first step"
    clauses = (f"different {where}, {first.name}", first.difference, first.rounding)
    return "; ".join(str(clause) for clause in clauses if clause)


def _side(side: Side) -> dict[str, Any]:
    training = side.training
    return {
        "dropout": side.options.given,
        "label": side.label,
        "run_id": side.config.run_id,
        "settings": side.config.settings,
        "precision": training.system.precision,
        "replacement": side.prepared.replacement.to_dict(),
        "losses": side.losses,
        "gradient_norms": side.gradient_norms,
        "weights_after": side.weights_digest(),
    }


def _place(place: Place | None) -> dict[str, Any] | None:
    if place is None:
        return None
    record = {"step": place.step, "name": str(place.name), **vars(place.name), **vars(place.difference)}
    rounding = place.rounding
    return record | {"rounding": rounding and {**vars(rounding), "sentence": str(rounding)}}


def _finite(record: Any) -> Any:
    """Replaces numbers that are not finite by text: JSON has no word for them."""
    if isinstance(record, float) and not math.isfinite(record):
        return str(record)
    if isinstance(record, Mapping):
        return {key: _finite(value) for key, value in record.items()}
    return [_finite(value) for value in record] if isinstance(record, list | tuple) else record
