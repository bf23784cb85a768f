"""Checks whether the files that a run was made of, its data and its checkpoint, have changed since."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pmexp.config import RunConfig
from pmexp.datasets.digest import digest_of_data
from pmexp.errors import UserError
from pmexp.run_folder.folder import RunFolder


def refuse_changed_inputs(runs: Sequence[RunConfig]) -> None:
    """Raises UserError where a run that is finished, or has a checkpoint to go on from, was made of files
    that have changed since."""
    now: dict[str, dict[str, str]] = {}  # keyed by the inputs, so that each file is read once
    differences = []
    for run in runs:
        if before := RunFolder(run.folder).input_digests():
            inputs = repr((run.dataset, run.robustness.ood, run.model))
            now[inputs] = now.get(inputs) or _digests(run)
            differences += [_difference(run, before, now[inputs])]
    if changed := [line for line in differences if line]:
        raise UserError(changed[0] + (f" ({len(changed)} of {len(runs)} runs)" if len(runs) > 1 else ""))


def refuse_other_inputs(run: RunConfig, now: Mapping[str, str]) -> None:
    """Raises UserError where the files that were read, whose record is `now`, are not those of the checkpoint
    that the run would go on from."""
    if difference := _difference(run, RunFolder(run.folder).input_digests(), now):
        raise UserError(difference)


def _digests(run: RunConfig) -> dict[str, str]:
    """Returns the digests of the run's inputs as they are now, by their keys in its record."""
    ood = run.robustness.ood
    digests = {
        "data_digest": digest_of_data(run.dataset),
        "ood_data_digest": digest_of_data(ood) if ood else "",
    }
    if run.model.pretrained and run.model.path:
        from pmexp.models.checkpoint_files import digest_of_folder  # imports torch

        digests["model_digest"] = digest_of_folder(Path(run.model.path).expanduser())
    return digests


def _difference(run: RunConfig, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Returns the line of an error for files that have changed; empty where none has or no digest tells."""
    for key, group, given in (
        ("data_digest", "dataset", run.dataset),
        ("ood_data_digest", "dataset", run.robustness.ood),
        ("model_digest", "model", run.model),
    ):
        if given and before.get(key) and now.get(key) and before[key] != now[key]:
            place = f"{group}.path={given.path}" if given.path else f"{group}={given.name}"
            files = "data" if group == "dataset" else "checkpoint"
            return (
                f"{place}: its {files} has changed since {run.folder} was made of it ({before[key]} then, "
                f"{now[key]} now); put the old {files} back, or remove that folder to run it anew, or set "
                "name=<another> to keep both"
            )
    return ""
