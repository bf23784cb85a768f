"""Checks whether what some runs need can be had, before any of them starts.

It imports what it looks at and no more: a sweep without pretrained models is answered without torch.
"""

from collections.abc import Sequence

from pmexp import datasets
from pmexp.config import RunConfig
from pmexp.datasets.ood import load_ood
from pmexp.extras import need
from pmexp.metrics.own import task_metric
from pmexp.own_code import check_takes, imported
from pmexp.tracking.trackers import check_installed


def check(runs: Sequence[RunConfig], here: bool = True) -> None:
    """Raises UserError where `runs` need a device, checkpoint, dataset, package or code of one's own that
    cannot be had; fetches what can be.

    Devices are those of this machine, and left out where the runs are not executed `here`.
    """
    for run in runs:
        check_metrics(run)
        check_installed(run.tracking.trackers)
    for variant in {repr(run.variant): run.variant for run in runs if run.variant.own_code}.values():
        from pmexp.variants.replace import check_own_code

        check_own_code(variant)
    for model in {repr(run.model): run.model for run in runs if run.model.builder}.values():
        builder = imported("model.builder", str(model.builder))
        check_takes(
            "model.builder", str(model.builder), builder, (None, None), model.options, "model.options"
        )
    if here:
        from pmexp.systems.system import System

        for system in {repr(run.system): run.system for run in runs}.values():
            System(system)
    pretrained = {repr(run.model): run.model for run in runs if run.model.pretrained}
    if pretrained:
        from pmexp.models.checkpoint import locate

        for model in pretrained.values():
            locate(model)
    for run in {repr((run.dataset, run.robustness)): run for run in runs}.values():
        load_ood(run, datasets.load(run.dataset))


def check_metrics(run: RunConfig) -> None:
    """Raises UserError where a metric's package is not installed, or one's own cannot be imported."""
    for name in run.dataset.metrics:
        if package := task_metric(name).package:
            need(f"dataset.metrics: {name}", package)
