"""Describes a run for its record: the machine, the model and its data, and what became of its dropout."""

from collections.abc import Mapping
from typing import Any

from pmexp.measure.environment import environment
from pmexp.measure.peak_memory import PeakMemory
from pmexp.measure.precision import attention, precision
from pmexp.metrics.own import task_metric
from pmexp.models import images
from pmexp.systems import arithmetic
from pmexp.training.loader import decodes
from pmexp.training.loop import Training
from pmexp.training.prepared import Prepared
from pmexp.training.recorder import Description


def description(prepared: Prepared, peak: PeakMemory, notes: Mapping[str, Any]) -> Description:
    """Returns what the record asks for when it is written. `notes`: more for its environment, until then."""
    training = prepared.training
    return Description(
        environment=lambda: _environment(prepared, peak) | dict(notes),
        replacement=lambda: _replacement(prepared),
        snapshot=training.instruments.snapshot,
        last=lambda: (training.progress.step, {"memory/peak_bytes": float(peak.bytes())}),
    )


def _replacement(prepared: Prepared) -> dict[str, Any]:
    """What the record says of the model's dropout, which the first step may complete, and of the method."""
    report = prepared.training.method.report
    return prepared.replacement.to_dict() | ({"method": dict(report)} if report else {})


def _environment(prepared: Prepared, peak: PeakMemory) -> dict[str, str | int]:
    training = prepared.training
    return environment(training.system.device) | {
        **precision(training.module, training.system.precision),
        **arithmetic.record(training.system.device),
        "attention": attention(training.module),
        "weights": prepared.model.weights,
        **({"architecture": prepared.model.architecture} if prepared.model.architecture else {}),
        **({"adapters": prepared.model.adapters} if prepared.model.adapters else {}),
        **prepared.inputs,
        **training.system.record(training.module),
        **training.instruments.record(),
        **{name: record() for name in training.metrics if (record := task_metric(name).record)},
        **({"generation": training.generation.record()} if training.generation else {}),
        "peak_memory_source": peak.source,
        "data_workers": training.workers,
        **({"data_wait": said} if (said := training.timer.waited_too_long()) else {}),
        **({"pictures": images.record()} if decodes(training.train) else {}),
        **({"not_updated": said} if (said := not_updated(training)) else {}),
        **({"unnamed_masks": "; ".join(training.unnamed_masks)} if training.unnamed_masks else {}),
    }


def not_updated(training: Training) -> str:
    """Says which parameters stay as they are, since the method's optimizer does not have them, if any do."""
    names = training.not_updated
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"the optimizer leaves out {len(names)} parameters that need a gradient: {shown}" if names else ""
