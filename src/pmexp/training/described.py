"""Describes a run for its record: the machine, the model and its data, and what became of its dropout."""

from collections.abc import Mapping, Sequence
from typing import Any

from pmexp.measure.environment import environment
from pmexp.measure.peak_memory import PeakMemory
from pmexp.measure.precision import attention, precision
from pmexp.metrics.own import task_metric
from pmexp.models import images
from pmexp.run_folder.warned import Warned
from pmexp.shown import counted, first_five
from pmexp.systems import arithmetic
from pmexp.training import loss_scale
from pmexp.training.dropout_rates import by_rate, changes, rates_of
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
    training = prepared.training
    report, rates = training.method.report, training.progress.dropout_rates or {}
    rates = rates | dict.fromkeys(training.progress.resting, 0.0)
    return prepared.replacement.to_dict() | {
        **({"method": dict(report)} if report else {}),
        **({"rates": by_rate(rates)} if rates else {}),
        **({"other_rates": "; ".join(said)} if (said := other_rates(training)) else {}),
    }


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
        **({"shared_cores": said} if (said := training.timer.shared_cores()) else {}),
        **({"pictures": images.record()} if decodes(training.train) else {}),
        **({"other_conditions": "; ".join(other)} if (other := training.progress.other_conditions) else {}),
        **_warned(prepared).record(),
    }


def _warned(prepared: Prepared) -> Warned:
    """What the run has warned of, or would have at its end."""
    training, inputs = prepared.training, prepared.inputs
    progress = training.progress
    return Warned(
        data_doubts=inputs.get("data_doubts", ""),
        ood_data_doubts=inputs.get("ood_data_doubts", ""),
        woken=prepared.woken,
        not_updated=not_updated(training),
        without_gradient=without_gradient(training),
        zero_gradient=zero_gradient(training),
        loss_scale=loss_scale.said(progress.loss_scale),
        unscheduled=progress.unscheduled,
        changed_in_evaluation=progress.changed_in_evaluation,
        labels_left_out=progress.labels_left_out,
        masks_in_graphs=progress.masks_in_graphs,
        resumed_without=progress.resumed_without,
        changed_process=prepared.changes.said(),
        reseeded=reseeded(prepared),
        unnamed_masks="; ".join(training.watch.unnamed_masks),
    )


def not_updated(training: Training) -> str:
    """Says which parameters stay as they are, since the method's optimizer does not have them, if any do."""
    names = training.not_updated
    return f"the optimizer leaves out {_named(names, 'that need a gradient')}" if names else ""


def without_gradient(training: Training) -> str:
    """Says which parameters that train have had no gradient in the steps taken, if there are any."""
    names, steps = training.progress.without_gradient, training.progress.step
    when = "the first step" if steps == 1 else f"any of {steps} steps"
    return f"no gradient came in {when} to {_named(names, 'that train')}" if names else ""


def zero_gradient(training: Training) -> str:
    """Says which parameters that train had no gradient but zeros in the first steps, if any do."""
    progress = training.progress
    names = [name for name in progress.still or () if name not in (progress.without_gradient or ())]
    seen = min(progress.step, loss_scale.STEPS)
    when = "the first step" if seen == 1 else f"each of the first {seen} steps"
    return f"zeros came as gradients in {when} to {_named(names, 'that train')}" if names else ""


def reseeded(prepared: Prepared) -> str:
    """Says where code has seeded torch anew while the run was built or in the first steps."""
    return "; ".join(filter(None, (*prepared.reseeded, prepared.training.progress.reseeded)))


def other_rates(training: Training) -> list[str]:
    """Says which dropouts had other rates than chosen in the first step or were in eval mode, and which have
    others since then."""
    progress, now = training.progress, rates_of(training.module, training.replacement)
    if (first := progress.dropout_rates) is None:
        return []
    resting = _named(progress.resting, "in eval mode drop nothing", "dropout module")
    lines = (
        progress.rates_beside,
        f"variant.p: in the first step {resting}" if progress.resting else "",
        changes(training.watch.rates_chosen, first, "in the first step"),
        changes(first, now, f"after step {training.progress.step}"),
    )
    return list(filter(None, lines))


def noticed(training: Training) -> list[str]:
    """Returns what a person should know of the step just taken: what the first ones show of code."""
    step, lines = training.progress.step, []
    if step == 1:
        lines += [without_gradient(training), *other_rates(training)]
        if masks := "; ".join(training.watch.unnamed_masks):
            lines.append(f"masks that no report names: {masks}")
    if step == min(loss_scale.STEPS, training.plan.last_step):
        lines += [loss_scale.said(training.progress.loss_scale), zero_gradient(training)]
    news, training.watch.news = training.watch.news, []
    return [*filter(None, lines), *news]


def _named(names: Sequence[str], which: str, kind: str = "parameter") -> str:
    return f"{counted(len(names), kind)} {which}: {first_five(names)}"
