"""Finds the runs of a sweep that are one training by construction, and lets one of them train for all."""

from collections.abc import Sequence
from dataclasses import replace

from pmexp.config.run import RunConfig


def share_trainings(runs: Sequence[RunConfig]) -> list[RunConfig]:
    """The runs in their order. Where several are one training, and ask for it by `share_training`, the
    ones that the criteria judge or compare with stay as they are, or else the first. The others take measured
    steps alone, and name a run that trains to its end."""
    if not any(run.share_training for run in runs):
        return list(runs)
    trained: dict[str, RunConfig] = {}
    for run in sorted(runs, key=lambda run: not run.is_judged):
        trained.setdefault(run.training, run)
    return [_shared(run, trained[run.training]) for run in runs]


def _shared(run: RunConfig, trained: RunConfig) -> RunConfig:
    if not run.share_training or run.is_judged or run.run_id == trained.run_id:
        return run
    return replace(run, train=replace(run.train, shared_with=trained.run_id))
